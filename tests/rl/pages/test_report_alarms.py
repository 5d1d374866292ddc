"""The report shows alarms with evidence, advice, the command and addresses of rollouts; hostile lines stay text."""

import json

import pytest
from page_helpers import HOSTILE, ParsedPage

from configs.load import dump_recipe, load_recipe
from rl.alarms.records import FILE
from rl.pages.report import write_report
from rl.run.folder import RunFolder

ROW = {"stage": "rl", "step": 34, "alarm": "stale", "event": "raised", "title": "the data are stale"}
ROW |= {"evidence": "30 % were dropped", "advice": "add workers", "since": 34, "rollouts": [[34, 3, 1], [34, 5, 0]]}


@pytest.fixture
def run(tmp_path, request):
    config = load_recipe(request.config.rootpath / "configs" / "recipes" / "quickstart.yaml")
    (tmp_path / "recipe.yaml").write_text(dump_recipe(config), encoding="utf-8")
    return RunFolder(tmp_path)


def written(run, *rows):
    (run.path / FILE).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    path = write_report(run)
    return path.read_text(encoding="utf-8"), ParsedPage(path)


def test_an_alarm_leads_to_its_rollouts(run):
    text, page = written(run, ROW)
    assert 'the data are stale <span class="soft">rl, step 34</span>' in text
    assert "30 % were dropped." in text
    assert "What to do: add workers." in text
    assert f"thinkvl book {run.path} --stage rl --step 34" in text
    assert [attrs["href"] for attrs in page.of("a")] == [
        "book-rl.html#step=34&group=3&sample=1",
        "book-rl.html#step=34&group=5&sample=0",
    ]


def test_alarms_that_are_over_come_last_and_say_so(run):
    over = {**ROW, "step": 50, "event": "over", "rollouts": []}
    newer = {**ROW, "alarm": "no_signal", "title": "most groups have no signal", "step": 40, "since": 40}
    text, page = written(run, ROW, newer, over)
    assert text.index("most groups have no signal") < text.index("rl, step 34, over after step 50")
    assert [attrs.get("class") for attrs in page.of("article")] == ["alarm", "alarm good"]


def test_a_stage_without_rollouts_has_its_alarms_from_its_metrics_and_rl_only_its_own(run):
    rows = [{"stage": "reading", "step": step, "loss": None if step == 7 else 1.0} for step in range(1, 10)]
    rows += [{"stage": "rl", "step": step, "loss": None, "rollouts": 8.0} for step in range(1, 10)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text, page = written(run, ROW)
    assert 'or a number is not finite <span class="soft">reading, step 7</span>' in text
    assert "loss not finite." in text
    assert "What to do: lower optimizer.learning_rate" in text
    assert "thinkvl replay" not in text, "which has the updates of RL alone"
    assert len(page.of("article")) == 2


def test_an_alarm_of_a_stage_without_rollouts_is_over_too(run):
    rows = [{"stage": "long_cot", "step": s, "skipped_updates": float(s == 3)} for s in range(1, 10)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text, page = written(run)
    assert "long_cot, step 3, over after step 8" in text
    assert "100 % of the step&#39;s updates were skipped" in text
    assert [attrs.get("class") for attrs in page.of("article")] == ["alarm good"]


def test_a_run_without_alarms_has_no_section(run):
    assert "Alarms" not in write_report(run).read_text(encoding="utf-8")


def test_hostile_lines_are_text(run):
    evil = {**ROW, **dict.fromkeys(("stage", "title", "evidence", "advice"), HOSTILE)}
    _, page = written(run, evil)
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    assert [tag for tag, _ in page.elements if tag in ("img", "script", "iframe")] == ["script"]
    assert all(attrs["href"].startswith("book-") for attrs in page.of("a"))
