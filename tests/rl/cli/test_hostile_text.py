"""What data and models say is obeyed by no terminal and no page, in whichever command it is shown."""

import html
import io
import json
import re
import sys

import pytest
from cli_helpers import scored

from configs.load import load_recipe
from rewards.types import Task, VerdictKind
from rl.cli.chat_text import AnswerPrinter
from rl.rollout_log import RolloutLog
from rl.run.console import PlainConsole
from rl.run.folder import RunFolder
from rl.run.model_card import CardFacts, model_card
from rl.run.report import examples_page, print_end
from rollouts.model_family import FAMILIES, TINY_FAMILY

HOSTILE = "a\x1b]8;;http://x\x1b\\b\x9b31m\u202e[/bold][link=http://evil]c[/link]'\"<b>..\x07 https://me:pass@h/"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")


def harmless(text):
    return not OBEYED.search(text) and "pass@" not in text


def hostile_answer():
    task = Task(id=HOSTILE, source=HOSTILE, question=HOSTILE, answer=HOSTILE)
    return scored(task, HOSTILE, VerdictKind.WRONG, 0.0, rule=HOSTILE)


def rows(path, *more):
    lines = [json.dumps(row) for row in more]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_score(thinkvl, tmp_path):
    good = {"response": "\\boxed{1}", "answer": "1", "source": HOSTILE, "id": HOSTILE}
    file = rows(tmp_path / "[a].jsonl", good, {**good, "source": "x" * 10**6}, {**good, "answer": None, HOSTILE: 1})
    code, output, errors = thinkvl("score", file)
    assert (code, errors) == (1, "")
    assert "[/bold]" in output
    assert harmless(output)
    assert len(output) < 20_000


def test_audit(thinkvl, tmp_path):
    row = {"id": HOSTILE, "question": HOSTILE, "answer": "1", "source": HOSTILE}
    file = rows(tmp_path / "a'b\".c.jsonl", row, {**row, "answer": "2"}, {**row, "id": "x" * 10**6})
    code, output, errors = thinkvl("audit", file)
    assert code == 1, errors
    assert harmless(output)
    assert len(output) < 10_000
    page = (tmp_path / "audits" / "a'b\".c" / "report.html").read_text()
    assert harmless(page)
    assert "<b>" not in page
    assert html.escape("'\"<b>..") in page


def test_names_of_dots_have_a_report_of_their_own(thinkvl, tmp_path):
    for name in ("...jsonl", "..a.jsonl"):
        rows(tmp_path / name, {"question": "1?", "answer": "1"})
        thinkvl("audit", name)
    assert sorted(path.parent.name for path in (tmp_path / "audits").rglob("report.html")) == ["a", "data"]
    assert not (tmp_path / "report.html").exists()


def test_rescore(thinkvl, run_folder):
    RolloutLog(run_folder / "rl" / "rollouts").write(1, [[hostile_answer()]], [], [])
    code, output, errors = thinkvl("rescore", run_folder)
    assert code == 0, errors
    assert "[/bold]" in output
    assert harmless(output)


def test_errors(thinkvl, tmp_path):
    code, _, errors = thinkvl("run", f"{tmp_path}/\x1b[31m[/bold].yaml")
    assert code == 1
    assert "[/bold].yaml: no such file" in errors
    assert harmless(errors)
    code, _, errors = thinkvl("submit", "x.yaml", "--address", "http://me:pass@127.0.0.1:1")
    assert harmless(errors)


def test_the_traceback_of_an_error_of_ours(thinkvl, run_folder, monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError(HOSTILE)

    monkeypatch.setattr("rl.cli.chat.chat_command", broken)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    with pytest.raises(ValueError, match="bold") as caught:
        thinkvl("chat", run_folder)
    sys.excepthook(caught.type, caught.value, caught.tb)
    text = capsys.readouterr().err
    assert text.startswith("Traceback")
    assert "[/bold]" in text
    assert harmless(text)


def test_chat():
    file = io.StringIO()
    printer = AnswerPrinter(PlainConsole(file=file, width=80))
    printer.feed(f"◁think▷{HOSTILE}◁/think▷{HOSTILE}")
    printer.close()
    assert "[/bold]" in file.getvalue()
    assert harmless(file.getvalue())


def test_the_end_of_a_run(run_folder):
    folder = RunFolder(run_folder)
    success = {HOSTILE: {"success": 0.0}, "y" * 10**6: {"success": 0.5}}
    (run_folder / "rl" / "success.json").write_text(json.dumps(success))
    evidence = {"task": HOSTILE, "source": "s", "question": "q", "kind": "death", "headline": HOSTILE, "detail": ""}
    (run_folder / "quarantine.json").write_text(json.dumps([{**evidence, "version": 1, "failures": 3}]))
    file = io.StringIO()
    print_end(folder, load_recipe(run_folder / "recipe.yaml"), PlainConsole(file=file, width=200))
    assert "[/bold]" in file.getvalue()
    assert harmless(file.getvalue())
    assert len(file.getvalue()) < 5_000


def test_the_page_of_examples():
    page = examples_page([hostile_answer()], title=HOSTILE)
    assert harmless(page)
    assert "<b>.." not in page


def test_the_model_card(run_folder):
    recipe = run_folder / "recipe.yaml"
    judge = "rl.judge={url: 'https://me:pass@h/v1?api_key=abc', model: m}"
    source = 'data.train.0={use: "x`[y](http://evil)\\n# Evil\\n```\\n", weight: 2}'
    config = load_recipe(recipe, [judge, source, 'name="a\\n## b"'])
    summary = {"stages": json.loads((run_folder / "summary.json").read_text())["stages"]}
    made = CardFacts(
        config=config, family=FAMILIES[TINY_FAMILY], summary=summary, licence="mit", name=config.name, repo_id=None,
        parameters=1,
    )  # fmt: skip
    card = model_card(made)
    assert harmless(card)
    assert "abc" not in card
    assert "https://***@h/v1?api_key=***" in card
    assert "\n# Evil" not in card
    assert "\n## b" not in card
    assert "x'[y](http://evil) # Evil" in card
    assert card.endswith("````\n"), "no run of backticks in the recipe ends its block"
