"""`thinkvl eval`: the figures of a run's final model, by the run's recipe or another."""

import json
import shutil

import pytest
import torch

from configs.load import load_recipe
from kimi_vl import load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rewards.extraction import Thinking
from rewards.scorer import Scorer
from rl.cli.evaluate import _open_engine
from rl.cli.open_model import find_model
from rl.run.evaluate import HELD_OUT_SEED, evaluate
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.tasks.mixture import held_out
from rollouts.tasks.prompts import PromptRenderer


def direct_figures(run_folder, config):
    """The same evaluation without the command."""
    path = run_folder / "rl" / "model"
    processor = load_processor(path)
    stop, barred = stop_and_barred_ids(path, processor)
    tasks = held_out(config.data.held_out, limit=config.evaluation.tasks, seed=HELD_OUT_SEED, base=run_folder)
    renderer = PromptRenderer(processor, max_prompt_tokens=4096)
    prompts, _ = renderer.render_all(tasks)
    engine = EngineDriver(TransformersEngine(load_model(path), stop_ids=stop, barred_ids=barred))
    with Scorer(()) as scorer:
        pipeline = RolloutPipeline(
            renderer=renderer,
            generate=engine.generate,
            decode=lambda ids: processor.tokenizer.decode(ids, skip_special_tokens=True),
            scorer=scorer,
        )
        return evaluate(
            pipeline,
            prompts,
            sampling=type(config.last_rl.sampling)(max_new_tokens=config.evaluation.max_new_tokens),
            samples=config.evaluation.samples,
            seed=config.seed,
        )[0]


def test_a_run_by_its_own_recipe(thinkvl, run_folder):
    code, output, _ = thinkvl("eval", run_folder)
    figures = json.loads((run_folder / "eval.json").read_text())
    expected = direct_figures(run_folder, load_recipe(run_folder / "recipe.yaml"))
    assert code == 0
    assert (figures["stage"], figures["tasks"], figures["samples"], figures["recipe"]) == ("rl", 6, 2, "tiny-sums")
    for name in ("greedy_accuracy", "sampled_accuracy", "thinking_share", "mean_tokens", "truncated_share"):
        assert figures[name] == getattr(expected, name)
    assert f"{expected.mean_tokens:.1f}" in output
    assert list(figures["intervals"]) == ["greedy", "pass@1", "pass@2", "maj@2"]
    assert figures["intervals"]["pass@1"]["value"] == pytest.approx(expected.sampled_accuracy)
    for name, estimate in expected.intervals.items():
        assert name in output
        assert str(estimate) in output
    assert "eval.json" in output


def test_fewer_tasks_other_samples_overrides_and_another_file(thinkvl, run_folder, tmp_path):
    target = tmp_path / "figures.json"
    arguments = ["--tasks", 3, "--samples", 1, "--output", target, "evaluation.max_new_tokens=2"]
    assert thinkvl("eval", run_folder, *arguments)[0] == 0
    figures = json.loads(target.read_text())
    assert (figures["tasks"], figures["samples"], figures["sampling"]["max_new_tokens"]) == (3, 1, 2)
    assert figures["mean_tokens"] <= 2
    assert not (run_folder / "eval.json").exists()


def test_a_model_folder_needs_a_recipe_and_writes_nothing_unasked(thinkvl, run_folder, tmp_path):
    model = shutil.copytree(run_folder / "rl" / "model", tmp_path / "model")
    code, _, text = thinkvl("eval", model)
    assert code == 1
    assert "give one with --recipe FILE" in text
    before = sorted(p.name for p in model.iterdir())
    code, output, _ = thinkvl("eval", model, "--recipe", run_folder / "recipe.yaml", "--tasks", 2)
    assert code == 0
    assert "2 held-out tasks of tiny-sums" in output
    assert sorted(p.name for p in model.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", 0], "evaluation.tasks = 0: must be 1 or more"),
        (["--samples", 0], "evaluation.samples = 0: must be 1 or more"),
        (["evaluation.taskz=3"], "did you mean evaluation.tasks?"),
        (["--recipe", "none.yaml"], "none.yaml: no such file"),
        (["data.held_out.0.options.scanz=[3]"], "options.scanz: unknown; the options are scans"),
        (["rl.rewards.0.use=mine.py:reward"], "mine.py:reward"),
        (["data.max_prompt_tokens=1"], "none of the 6 held-out tasks can be used: 6 prompt longer than 1 token"),
    ],
)
def test_mistakes_are_one_text(thinkvl, run_folder, arguments, message):
    code, _, text = thinkvl("eval", run_folder, *arguments)
    assert (code, "Traceback" in text) == (1, False)
    assert message in text
    assert not (run_folder / "eval.json").exists()


def test_accuracy_against_thinking_budget(thinkvl, run_folder, monkeypatch):
    """A row a budget in the table and in the file; every answer counts as open, so all are closed for the model."""
    from rl.run import thinking_budget

    monkeypatch.setattr(
        thinking_budget, "split_thinking", lambda text: Thinking(thought=text, answer_text="", closed=False)
    )
    code, output, _ = thinkvl("eval", run_folder, "--thinking-budget", "4,1", "evaluation.max_new_tokens=20")
    assert code == 0
    figures = json.loads((run_folder / "eval.json").read_text())
    assert [row["budget"] for row in figures["thinking_budgets"]] == [1, 4]
    assert figures["thinking_budgets"][0]["forced_share"] > 0
    assert "closed for the model" in output
    code, _, text = thinkvl("eval", run_folder, "--thinking-budget", "many")
    assert (code, "--thinking-budget many: must be whole numbers" in text) == (1, True)


def test_what_is_left_out_is_told_with_counts_and_reasons(thinkvl, run_folder, tmp_path, monkeypatch):
    """Rows that are no task, tasks that cannot be rendered, and answers whose verifier fails; console and file."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    row = {"question": "How much is 1 + 1?", "answer": "2"}
    unread = row | {"answer": "a few", "verifier": "numeric"}
    long = row | {"question": "How much? " * 300}
    rows = [row] * 3 + [unread] * 2 + [long, row | {"image": "lost.png"}, row | {"image": "far.png"}]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    arguments = ["data.held_out=[{use: held.jsonl}]", "data.max_prompt_tokens=200"]
    code, output, _ = thinkvl("eval", run_folder, *arguments)
    assert code == 0
    assert "held: 2 skipped, image file is missing (row 6: lost.png; row 7: far.png)" in output
    assert "1 held-out tasks left out (prompt longer than 200 tokens)" in output
    assert "6 answers without a verdict: bad_reference" in output
    for name in ("greedy", "pass@1", "pass@2", "maj@2"):
        assert f"{name} is over 3 of 5 tasks: the others have too few verdicts" in output
    figures = json.loads((run_folder / "eval.json").read_text())
    assert figures["rows_left_out"] == {"image file is missing": 2}
    assert figures["left_out"] == {"prompt longer than 200 tokens": 1}
    assert figures["verifier_failures"] == sum(figures["failure_reasons"].values()) == 6
    assert (figures["tasks"], figures["intervals"]["pass@2"]["tasks"]) == (5, 3)


def test_an_evaluation_that_judges_nothing_is_an_error(thinkvl, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    row = {"question": "How much is 1 + 1?", "answer": "a few", "verifier": "numeric"}
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(3)))
    code, _, text = thinkvl("eval", run_folder, "data.held_out=[{use: held.jsonl}]")
    assert code == 1
    assert "held-out tasks: not one of 3 reference answers could be judged:\n  3 x verifier: bad_reference" in text
    assert not (run_folder / "eval.json").exists()


ENGINE = """
import torch

from rollouts.engines.transformers import TransformersEngine
from rollouts.model_family import family_at

class Mine(TransformersEngine):
    fixed_weights = True

    def __init__(self, spec, *, note):
        model = family_at(spec.model_path).load_model(spec.model_path, dtype=torch.float32)
        super().__init__(model, stop_ids=spec.stop_ids, barred_ids=spec.barred_ids)
        self.note = note

    def close(self):
        with open(self.note, "w") as file:
            file.write("closed")
"""


def test_an_engine_of_ones_own(thinkvl, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ENGINE)
    code, _, text = thinkvl("eval", run_folder, "rl.engine=mine.py:Mine", f"rl.engine_options.note={tmp_path}/note")
    assert code == 0, text
    assert (tmp_path / "note").read_text() == "closed"
    figures = json.loads((run_folder / "eval.json").read_text())
    expected = direct_figures(run_folder, load_recipe(run_folder / "recipe.yaml"))
    assert (figures["greedy_accuracy"], figures["mean_tokens"]) == (expected.greedy_accuracy, expected.mean_tokens)


def test_the_engine_of_a_run_of_others_must_be_allowed(thinkvl, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(ENGINE)
    recipe = run_folder / "recipe.yaml"
    text = recipe.read_text().replace("engine: transformers", "engine: mine.py:Mine")
    recipe.write_text(text.replace("engine_options: {}", "engine_options: {note: n}"))
    code, _, text = thinkvl("eval", run_folder)
    assert code == 1
    assert "--allow 'mine.py:Mine'" in text
    assert not (tmp_path / "n").exists()
    assert thinkvl("eval", run_folder, "--allow", "mine.py:Mine")[0] == 0
    assert (tmp_path / "n").exists()


def test_weights_are_rounded_as_in_a_run_and_the_bias_of_routers_is_not(run_folder):
    """A rounded bias would choose other experts than the run's workers did."""
    recipe = run_folder / "recipe.yaml"
    config = load_recipe(recipe, ["rl.engine_dtype=bfloat16"])
    _, driver = _open_engine(find_model(str(run_folder)), config)
    state = driver.engine.model.state_dict()
    biases = {name: tensor for name, tensor in state.items() if name.endswith("e_score_correction_bias")}
    assert {tensor.dtype for tensor in biases.values()} == {torch.float32}
    assert {tensor.dtype for name, tensor in driver.engine.model.named_parameters()} == {torch.bfloat16}
