"""The whole miniature pipeline: what a run leaves, running it again, another recipe in its folder, Ctrl-C."""

import json
import signal
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from configs.errors import UserError
from kimi_vl import load_model, load_processor
from rewards.plugins.interface import PluginError
from rl.run.trackers.jsonl_tracker import read_metrics
from rollouts.tasks.dataset import DataSetError


def test_summary_holds_every_field(whole_run):
    mini, _ = whole_run
    summary = json.loads((mini.run_folder / "summary.json").read_text())
    assert summary["name"] == "mini"
    assert summary["seed"] == 4
    assert summary["seconds"] > 0
    assert {"thinkvl", "torch", "transformers", "trl", "ray", "python"} <= summary["versions"].keys()
    assert [s["name"] for s in summary["stages"]] == ["instruct", "long_cot", "rl"]
    for stage in summary["stages"]:
        assert stage["seconds"] > 0
        assert not stage["resumed"]
        assert 0 < stage["mean_tokens"] <= 16
        for share in ("greedy_accuracy", "sampled_accuracy", "thinking_share"):
            assert 0 <= stage[share] <= 1


def test_metrics_of_every_step(whole_run):
    mini, _ = whole_run
    path = mini.run_folder / "metrics.jsonl"
    assert [r["step"] for r in read_metrics(path, stage="instruct")] == list(range(1, 7))
    assert [r["step"] for r in read_metrics(path, stage="long_cot")] == list(range(1, 5))
    steps = read_metrics(path, stage="rl")
    assert [r["step"] for r in steps] == list(range(1, 7))
    assert [r["step"] for r in read_metrics(path, stage="validation/rl")] == [0, 3, 6]
    assert all(r["rollouts"] + r["verifier_failures"] == 24 for r in steps)
    assert [r["version"] for r in steps] == list(range(1, 7))
    assert all("reward/length" in r for r in steps)


def test_seconds_add_up_and_everybody_is_idle_for_a_share(whole_run):
    """A CPU has no known peak, so no MFU. Of four samples of a prompt, three take it from the cache."""
    mini, _ = whole_run
    for row in read_metrics(mini.run_folder / "metrics.jsonl", stage="rl"):
        phases = [row[f"seconds/{name}"] for name in ("rollout", "update", "record", "publish")]
        assert sum(phases) == pytest.approx(row["seconds/step"], rel=0.02)
        assert row["seconds/generate"] <= row["seconds/rollout"]
        assert row["seconds/learner"] <= row["seconds/update"]
        assert all(0 <= row[f"idle/{role}"] <= 1 for role in ("driver", "learner", "workers"))
        assert row["idle/workers"] < 1
        assert row["tokens_per_second/rollouts"] > 0
        assert row["publish_gb_per_second"] > 0
        assert 0 < row["cache/full"] < 1
        assert 0.6 < row["cache/prompt_hits"] < 0.75, "the parity check reads its prompts, too"
        assert all(0.1 < row[f"memory/{role}"] < 100 for role in ("driver", "learner", "workers"))
        assert not [name for name in row if name.startswith(("mfu/", "cuda_memory/"))]
    for row in read_metrics(mini.run_folder / "metrics.jsonl", stage="instruct"):
        assert row["tokens_per_second/learner"] > 0
        assert row["tflops/learner"] > 0


def test_every_metric_is_declared(whole_run):
    mini, _ = whole_run
    assert mini.undeclared_metrics() == set()


class Images(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = 0

    def handle_starttag(self, tag, attributes):
        self.found += tag == "img" and dict(attributes)["src"].startswith("data:image/")


def test_the_report_is_of_the_finished_run(whole_run):
    mini, printed = whole_run
    report = (mini.run_folder / "report.html").read_text(encoding="utf-8")
    assert "The run is finished." in report
    assert "<h3>Reward</h3>" in report
    assert "tracker report failed" not in printed


def test_curves_can_be_looked_at(whole_run):
    mini, _ = whole_run
    with Image.open(mini.run_folder / "curves.png") as curves:
        assert min(curves.size) > 200
        assert len(curves.convert("RGB").getcolors(1 << 24)) > 20


def test_ten_examples_with_images(whole_run):
    mini, _ = whole_run
    page = Images()
    page.feed((mini.run_folder / "examples.html").read_text())
    assert page.found == 10


def test_the_export_is_the_trained_model(whole_run):
    mini, _ = whole_run
    exported, trained = (load_model(mini.run_folder / p).state_dict() for p in ("export", "rl/model"))
    assert exported.keys() == trained.keys()
    assert all(torch.equal(exported[name], trained[name]) for name in trained)
    assert load_processor(mini.run_folder / "export").tokenizer("7+4")["input_ids"]


def test_the_printed_end_says_where_things_are(whole_run):
    mini, printed = whole_run
    for text in (
        "summary.json",
        "report.html",
        "curves.png",
        "stages.html",
        "examples.html",
        "export",
        "try next:",
        "held-out greedy",
        "what the stage gained",
        "python -m webbrowser file://",
        "thinkvl book runs/mini",
        "thinkvl eval runs/mini",
    ):
        assert text in printed
    assert "hardest: " in printed
    assert not [task for task in json.loads((mini.run_folder / "rl/success.json").read_text()) if task in printed]


def test_a_finished_run_is_not_run_again(whole_run):
    mini, _ = whole_run
    before = {p: p.read_bytes() for p in (mini.run_folder / "rl").rglob("*") if p.is_file()}
    lines = (mini.run_folder / "metrics.jsonl").read_text()
    printed = mini.here()
    for stage in ("instruct", "long_cot", "rl"):
        assert f"{stage}: already done" in printed
    assert {p: p.read_bytes() for p in before} == before
    assert (mini.run_folder / "metrics.jsonl").read_text() == lines
    assert len(json.loads((mini.run_folder / "summary.json").read_text())["stages"]) == 3


def test_another_recipe_may_not_enter(whole_run):
    mini, _ = whole_run
    with pytest.raises(UserError, match=r"rl\.steps: 6 there, 7 now"):
        mini.here("rl.steps=7")


@pytest.mark.chaos  # three invocations
def test_ctrl_c_in_a_supervised_stage_loses_nothing(whole_run, make_mini):
    """130 and a hint; the same command then ends in the weights of a run that was not stopped."""
    mini = make_mini("long_cot=null", "rl=null", "export=false")
    code, output, seen = mini.stop_at("instruct", 3, signal.SIGINT)
    assert code == 130, output
    assert "stopped; the same command continues the run" in output
    assert "Traceback" not in output
    assert 3 <= seen < 6, "the signal came too late"
    assert not (mini.run_folder / "instruct" / "stage.json").exists()
    assert "resuming instruct after step" in mini.here()
    stopped, whole = (m.run_folder / "instruct" / "model" / "model.safetensors" for m in (mini, whole_run[0]))
    assert stopped.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("key", ["train", "validation"])
def test_a_verifier_that_is_not_there_is_told_before_any_training(make_mini, key):
    mini = make_mini(f"data.{key}=[{{use: mine.jsonl}}]")
    row = {"question": "What?", "answer": "1", "solution": "1", "verifier": "judge"}
    (mini.folder / "mine.jsonl").write_text("".join(json.dumps({**row, "id": str(i)}) + "\n" for i in range(64)))
    with pytest.raises(PluginError, match="'judge' is off"):
        mini.here()
    assert not (mini.run_folder / "instruct").exists()


def test_validation_data_that_is_not_there_is_told_before_any_training(make_mini):
    mini = make_mini("data.validation=[{use: nowhere.jsonl}]")
    with pytest.raises(DataSetError, match=r"nowhere\.jsonl"):
        mini.here()
    assert not (mini.run_folder / "instruct").exists()
