"""The report: curves with what is healthy, what changed on a resume, and hostile names that stay text."""

import json
import math
import re

import pytest
from page_helpers import HOSTILE, ParsedPage

from configs.load import dump_recipe, load_recipe
from rl.pages.charts import Line, line_chart
from rl.pages.curves import LOSS_CURVES, RL_CURVES, curves_of, healthy, is_of, lines_of
from rl.pages.page import policy
from rl.pages.report import write_report
from rl.run.accuracy import wilson
from rl.run.folder import RunFolder
from rl.run.trackers import report_tracker
from rl.run.trackers.report_tracker import ReportTracker
from rl.run.trackers.run_info import RunInfo


@pytest.fixture
def run(tmp_path, root):
    """A run in its RL stage: 40 steps, two validations, a change, and hostile names."""
    config = load_recipe(root / "configs" / "recipes" / "quickstart.yaml", ["name=evil"])
    name = json.dumps(HOSTILE.replace("\x00", "").replace("/", ""))
    recipe = dump_recipe(config).replace("name: evil", f"name: {name}", 1)
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    fixed = {"stage": "rl", "signal_share": 0.5, "truncated_share": 0.3}
    fixed |= {f"accuracy/{HOSTILE}": 0.5, "accuracy/other": 0.4}
    rows = [
        {**fixed, "step": step, "time": 1.0 * step, "reward": step / 50, "accuracy": step / 50, "entropy": 1 / step}
        | {"grad_norm": None if step == 7 else 1.0}
        for step in range(1, 41)
    ]
    rows += [{"stage": "validation/rl", "step": step, "tasks": 100.0, "greedy_accuracy": 0.5} for step in (0, 40)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    change = {"time": 1e9, "changed": {"rl.workers": [2, HOSTILE]}}
    (tmp_path / "changes.jsonl").write_text(json.dumps(change) + "\n{cut")
    return RunFolder(tmp_path)


@pytest.fixture
def root(request):
    return request.config.rootpath


def test_curves_with_their_sentences(run):
    text = write_report(run).read_text(encoding="utf-8")
    for title in ("Reward", "Accuracy", "Accuracy by source", "Entropy (nats)", "Groups with signal"):
        assert f"<h3>{title}</h3>" in text
    assert "Healthy: falls slowly; near 0 the policy explores nothing new." in text
    assert "greedy, validation" in text
    assert "Not measured in this stage: Length of a completion (tokens); " in text
    assert "Stage reading, before its first step; 0 of 3 stages are done." in text


def test_the_command_of_the_book_stands_where_rollouts_are_and_no_book_is(run):
    assert "thinkvl book" not in write_report(run).read_text(encoding="utf-8")
    (run.path / "rl" / "rollouts").mkdir(parents=True)
    (run.path / "rl" / "rollouts" / "step-000001.parquet").touch()
    assert f"<code>thinkvl book {run.path}</code>" in write_report(run).read_text(encoding="utf-8")
    (run.path / "book-rl.html").touch()
    text = write_report(run).read_text(encoding="utf-8")
    assert "thinkvl book" not in text
    assert '<a href="book-rl.html">' in text


def test_hostile_names_are_text(run):
    page = ParsedPage(write_report(run))
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert [tag for tag, _ in page.elements if tag in ("img", "script", "iframe")] == ["script"]
    assert page.comments == []
    given = next(attrs["content"] for attrs in page.of("meta") if "http-equiv" in attrs)
    assert given == policy(page.texts["style#"], page.texts["script#"])
    names = [name for attrs in page.of("svg") for name, _, _ in json.loads(attrs["data-lines"])]
    assert "other" in names


def test_what_changed_on_resume_is_there_and_a_cut_line_is_left_out(run):
    text = write_report(run).read_text(encoding="utf-8")
    assert text.count("<td>rl.workers</td>") == 1


def test_the_tracker_writes_at_once_then_pauses_and_writes_at_the_end(run, monkeypatch):
    written = []
    monkeypatch.setattr(report_tracker, "write_report", written.append)
    tracker = ReportTracker(RunInfo(folder=run.path, name="x", recipe={}))
    for step in range(5):
        tracker.write("rl", step, {})
    assert len(written) == 1
    tracker.close()
    assert len(written) == 2


def test_every_curve_of_metrics_that_are_in_the_table_says_what_is_healthy():
    for kind in ("rl", "sft", "pretrain", "vit", "long_context", "long2short"):
        assert [c.title for c in curves_of(kind) if is_of(kind, c) and not healthy(kind, c)] == []
    assert healthy("sft", LOSS_CURVES[0]) == "Healthy: falls."


def test_lines_that_differ_in_what_is_healthy_are_named_and_only_those_that_are_drawn():
    thinks = next(curve for curve in RL_CURVES if curve.title == "Thinks; cut off")
    assert healthy("rl", thinks, ["truncated_share"]).startswith("Healthy: below 0.1")
    both = healthy("rl", thinks, ["thinking_share", "truncated_share"])
    assert both.startswith("Healthy: thinking_share steady")
    assert ". truncated_share below 0.1" in both


def test_what_should_not_happen_is_drawn_where_it_did(run):
    assert "None in this stage" not in write_report(run).read_text(encoding="utf-8")
    for failures, drawn in ((0.0, False), (3.0, True)):
        row = {"stage": "rl", "step": 41, "verifier_failures": failures}
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        text = write_report(run).read_text(encoding="utf-8")
        assert ("<h3>Verifications that failed</h3>" in text) is drawn
        assert ("None in this stage: Verifications that failed." in text) is not drawn


def test_one_source_is_not_drawn_beside_the_whole(run):
    rows = [{"step": step, "loss/a": 1.0, "loss/b": 2.0} for step in range(3)]
    by_source = next(curve for curve in LOSS_CURVES if curve.title == "Loss by source (nats)")
    assert len(lines_of(by_source, rows)) == 2
    assert lines_of(by_source, [{"step": 1, "loss/a": 1.0}]) == []


def test_the_interval_of_a_share():
    assert wilson(0.5, 100) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(0.0, 10)[0] == pytest.approx(0.0)
    assert all(math.isnan(end) for end in wilson(0.5, 0))


@pytest.mark.parametrize("ys", [[0.0, 0.0], [3.0], [-5.0, 1e9], [1e-12, 1e-3], [float("nan"), 2.0], [0.0, 1.0] * 1000])
@pytest.mark.parametrize("log", [False, True])
def test_any_numbers_can_be_drawn(ys, log):
    chart = str(line_chart([Line(name="a", xs=range(len(ys)), ys=ys)], log=log))
    numbers = [float(text) for text in re.findall(r" [xy][12]?='([^']+)'", chart)]
    assert numbers
    assert all(-1 <= value <= 421 for value in numbers)
    assert "nan" not in chart
    assert len(chart) < 40_000


def test_nothing_to_draw_is_no_chart():
    assert line_chart([Line(name="a", xs=[1], ys=[float("nan")])]) == ""
    assert lines_of(RL_CURVES[0], []) == []
