"""The page of a recipe: each stage's own figure beside that of the model that entered it, on made-up runs."""

import json
from dataclasses import replace

import pytest

from configs.data import SourceConfig
from configs.load import dump_recipe
from configs.long2short import LongToShortConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.supervised import PretrainConfig, SFTConfig
from rl.run.folder import RunFolder, StageRecord
from rl.run.recipe_page import all_rows, markdown, own_rows, shortcomings, spread, write_recipe_page
from rl.run.recipe_plots import plot_retrieval
from rl.run.stage_figures import OWN_FIGURES, StageFigures, read_stages, source_titles

GOOD = {
    "pretrain": {"perplexity/wikipedia_leads": 40.0, "perplexity/charts": 2.5},
    "cooldown": {"perplexity/wikipedia_leads": 30.0, "perplexity/charts": 2.4, "greedy_accuracy": 0.1},
    "sft": {"greedy_accuracy": 0.4, "greedy_accuracy/charts": 0.3, "sampled_accuracy": 0.2},
    "rl": {"greedy_accuracy": 0.6, "greedy_accuracy/charts": 0.5, "sampled_accuracy": 0.55, "mean_tokens": 30.0},
    "short": {"greedy_accuracy": 0.59, "greedy_accuracy/charts": 0.5, "mean_tokens": 20.0},
}
STAGES = (
    PretrainConfig(steps=1),
    PretrainConfig(name="cooldown", steps=1),
    SFTConfig(steps=1),
    RLConfig(steps=1),
    LongToShortConfig(name="short", method="average", short_model="sft"),
)


def make_run(path, figures):
    """A folder as a run leaves it, with the held-out metrics of its stages by name."""
    stages = tuple(stage for stage in STAGES if stage.name in figures)
    config = RunConfig(name="made", output_dir=str(path), stages=stages)
    path.mkdir()
    (path / "recipe.yaml").write_text(dump_recipe(config))
    folder, lines = RunFolder(path), []
    for stage in stages:
        folder.stage(stage.name).mkdir()
        values = figures[stage.name]
        lines.append({"stage": f"held_out/{stage.name}", "step": 0, "time": 1.0, **values})
        folder.finish(
            StageRecord(
                name=stage.name,
                kind=stage.kind,
                seconds=2.0,
                greedy_accuracy=values.get("greedy_accuracy", float("nan")),
                sampled_accuracy=0.0,
                thinking_share=0.0,
                mean_tokens=0.0,
            )
        )
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def changed(**stages):
    return {name: values | stages.get(name, {}) for name, values in GOOD.items()}


@pytest.fixture
def good(tmp_path):
    return make_run(tmp_path / "good", GOOD)


def test_each_stage_has_its_own_figure_beside_that_of_the_model_that_entered_it(good):
    found = {stage.name: (stage.before, stage.after, stage.improved) for stage in read_stages(good)}
    assert found["pretrain"] == (None, pytest.approx(10.0), None)
    assert found["cooldown"] == (pytest.approx(10.0), pytest.approx(72**0.5), True)
    assert found["sft"] == (0.1, 0.4, True)
    assert found["rl"] == (0.2, 0.55, True)
    assert found["short"] == (30.0, 20.0, True)


def test_a_stage_that_got_worse_is_named_in_words(tmp_path):
    run = read_stages(make_run(tmp_path / "worse", changed(rl={"sampled_accuracy": 0.15})))
    lines = shortcomings([run])
    assert "rl: sampled accuracy 0.200 -> 0.150, NOT better." in lines
    assert not [line for line in lines if line.startswith(("cooldown", "sft", "short"))]
    assert own_rows([run])[4][-1] == "0 of 1"


def test_shorter_completions_that_cost_accuracy_are_no_improvement(tmp_path):
    run = read_stages(make_run(tmp_path / "short", changed(short={"greedy_accuracy": 0.5})))
    assert run[-1].improved is False
    assert "NOT better; greedy accuracy -0.100, where -0.02 may be lost" in run[-1].sentence()


def test_what_a_stage_measured_itself_on_the_entering_model_goes_before_the_stage_before(tmp_path):
    run = read_stages(make_run(tmp_path / "own", changed(short={"before/mean_tokens": 25.0})))
    assert run[-1].before == 25.0
    assert "before/mean_tokens" not in run[-1].values


def test_figures_that_are_missing_are_said_to_be(tmp_path):
    figures = changed() | {"pretrain": {}, "sft": {"sampled_accuracy": None}}
    run = read_stages(make_run(tmp_path / "missing", figures))
    assert [stage.improved for stage in run] == [None, None, None, None, True]
    said = " ".join(shortcomings([run]))
    assert read_stages(make_run(tmp_path / "good", GOOD))[0].sentence().endswith("random weights entered the stage")
    assert "pretrain: perplexity was not measured: no held-out data for it." in said
    assert "it was not measured on the model that entered the stage" in said
    write_recipe_page([RunFolder(tmp_path / "missing")], tmp_path / "page.html")


def test_only_metrics_that_both_models_have_are_compared():
    stage = StageFigures(
        name="cooldown",
        kind="pretrain",
        seconds=1.0,
        values={"perplexity/a": 4.0, "perplexity/b": 1000.0},
        entering={"perplexity/a": 5.0},
    )
    assert (stage.before, stage.after) == (pytest.approx(5.0), pytest.approx(4.0))


def test_the_page_is_self_contained_and_has_means_over_runs(tmp_path, good):
    other = make_run(tmp_path / "other", changed(rl={"sampled_accuracy": 0.15}))
    (other.path / "curves.png").write_bytes(b"not the first run's")
    write_recipe_page([good, other], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>made: what each stage added</h1>" in page
    assert "<p>2 runs, seeds 0, 0: means, and in brackets the range." in page
    assert "0.35 (0.15 to 0.55)" in page
    assert "1 of 2" in page
    assert "NOT better (run 2)" in page
    assert page.count("data:image/png;base64,") == 3, "accuracy by source, accuracy, perplexity"
    assert "src='http" not in page
    assert list(tmp_path.glob("*.partial")) == []


def test_pictures_of_the_run_are_in_the_page(tmp_path, good):
    (good.path / "curves.png").write_bytes(b"png")
    (good.stage("sft") / "needles.png").write_bytes(b"png")
    write_recipe_page([good], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count("data:image/png;base64,") == 5


def test_sources_are_called_by_what_they_show():
    sources = [
        SourceConfig(use="charts", options={"points": [3]}),
        SourceConfig(
            use="charts", split="held_out", options={"form": "choice", "points": [3], "kinds": ["a", "b", "c"]}
        ),
        SourceConfig(use="rows.jsonl"),
        SourceConfig(use="charts", split="held_out", options={"form": "choice", "points": [4]}),
    ]
    assert source_titles(sources) == {
        "charts": "charts (training split)",
        "charts-2": "charts (choice)",
        "charts-3": "charts (choice) 3",
    }


def test_tables_as_markdown(good):
    lines = markdown(all_rows([read_stages(good)])).splitlines()
    assert lines[0] == "| metric | pretrain | cooldown | sft | rl | short |"
    assert "| greedy_accuracy/charts | - | - | 0.3 | 0.5 | 0.5 |" in lines
    assert spread([None, None]) == "-"


def test_every_kind_of_stage_has_a_figure():
    from configs.stage_kinds import STAGE_KINDS

    assert set(STAGE_KINDS) <= set(OWN_FIGURES)


def test_retrieval_is_drawn_before_and_after(tmp_path):
    stage = StageFigures(name="vit", kind="vit", seconds=1.0, values={"image_to_text_1/emoji": 0.5})
    assert plot_retrieval([[stage]], tmp_path / "retrieval.png")
    assert not plot_retrieval([[replace(stage, values={})]], tmp_path / "none.png")
    assert (tmp_path / "retrieval.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "none.png").exists()
