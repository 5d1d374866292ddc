"""`thinkvl audit` and `thinkvl score` as a user meets them: exit codes, files, what is printed."""

import json
import subprocess
import sys

import pytest
from PIL import Image
from typer.testing import CliRunner

from rl.cli.main import app, main

RUNNER = CliRunner()


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lines(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def thinkvl(*arguments, monkeypatch):
    """Exit code of the whole command, as from a shell."""
    monkeypatch.setattr(sys, "argv", ["thinkvl", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def audited(*arguments):
    done = RUNNER.invoke(app, ["audit", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done


def test_a_clean_file(here):
    lines(here / "good.jsonl", [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(60, 70)])
    done = audited("good.jsonl")
    assert done.exit_code == 0, done.output
    assert "good: 10 tasks" in done.output
    assert "clean:" in done.output
    report = json.loads((here / "audits/good/report.json").read_text())
    assert (report["clean"], report["findings"], report["sources"][0]["checked"]) == (True, [], 10)
    assert "no findings" in (here / "audits/good/report.html").read_text()


def test_a_file_in_two_roles_is_told_apart(here):
    lines(here / "dots.jsonl", [{"question": f"What is {n} + 1?", "answer": str(n + 1)} for n in range(60, 70)])
    entries = "train: [{use: dots.jsonl, split: 'train[:80%]'}], held_out: [{use: dots.jsonl, split: 'train[80%:]'}]"
    (here / "my.yaml").write_text(
        f"{{name: a, output_dir: runs, data: {{{entries}}}, stages: [{{kind: rl, steps: 1}}]}}"
    )
    done = audited("my.yaml")
    assert "dots (train) 1/8" in done.output
    assert "dots (held_out) 1/2" in done.output
    assert "dots (held_out): 2 tasks" in done.output


def test_a_file_with_everything_wrong(here):
    Image.new("RGB", (60, 40)).save(here / "ok.png")
    (here / "cut.png").write_bytes((here / "ok.png").read_bytes()[:-30])
    (here / "text.png").write_text("hello")
    rows = [
        {"question": "How large?", "answer": "3/4", "images": "ok.png"},
        {"question": "how large? ", "answer": "3/4", "images": "ok.png"},
        {"question": "How large?", "answer": "0.8", "images": "ok.png"},
        {"question": "Which?", "answer": "B", "choices": ["1/2", "0.5", "3"]},
        {"question": "Which one?", "answer": "E", "choices": ["a", "b"]},
        {"question": "Broken?", "answer": "\\frac{1}{"},
        {"question": "Cut?", "answer": "1", "images": "cut.png"},
        {"question": "Text?", "answer": "1", "images": "text.png"},
        {"question": "Gone?", "answer": "1", "images": "gone.png"},
        {"question": "When?", "answer": "1998", "verifier": "numeric(rel=0.05)"},
        {"question": "And when?", "answer": "2001", "verifier": "numeric(rel=0.05)"},
        {"question": "Plug-in?", "answer": "5", "verifier": "plug.py:always"},
        "{not json",
    ]
    (here / "plug.py").write_text("def always(response, reference, *, task):\n    return 1.0\n")
    lines(here / "bad.jsonl", rows)
    done = audited("bad.jsonl", "--output", "out", "--allow", "plug.py:always")
    assert done.exit_code == 1
    report = json.loads((here / "out/report.json").read_text())
    by_code = {code: [f for f in report["findings"] if f["code"] == code] for code in report["counts"]}
    assert {code: len(found) for code, found in by_code.items() if code != "cheat-accepted"} == {
        "bad-row": 2, "bad-image": 3, "bad-gold": 1, "ambiguous-choices": 1, "duplicate": 1, "conflict": 1,
    }  # fmt: skip
    assert {f["task_id"] for f in by_code["cheat-accepted"]} == {"bad.jsonl/9", "bad.jsonl/10", "bad.jsonl/11"}
    assert "0x" not in json.dumps(report), "the same data give the same report"
    assert "bad-image" in done.output
    ignore = [part for code in report["counts"] for part in ("--ignore", code)]
    assert audited("bad.jsonl", "--allow", "plug.py:always", *ignore).exit_code == 0


def test_a_recipe_whose_held_out_tasks_were_trained_on(here):
    lines(here / "a.jsonl", [{"question": f"Half of {n}?", "answer": str(n / 2)} for n in range(1, 10)])
    lines(
        here / "b.jsonl", [{"question": "half of 7?", "answer": "3.5"}, {"question": "Half of 99?", "answer": "49.5"}]
    )
    (here / "r.yaml").write_text(
        "name: r\noutput_dir: out\ndata: {train: [{use: a.jsonl}], held_out: [{use: b.jsonl}]}\n"
        "stages: [{kind: rl, steps: 1}]\n"
    )
    done = audited("r.yaml")
    assert done.exit_code == 1
    [found] = json.loads((here / "audits/r/report.json").read_text())["findings"]
    assert (found["code"], found["message"]) == ("leak", "this held_out task is the training task a.jsonl/6")
    assert audited("r.yaml", "data.held_out.0.use=a.jsonl", "--ignore", "leak").exit_code == 0


@pytest.mark.parametrize("data", ["digit_sums", "easy_vqa"])
def test_the_built_in_tasks_are_clean(here, data):
    done = audited(data, "--limit", "40")
    assert done.exit_code == 0, done.output
    page = (here / f"audits/{data}/report.html").read_text()
    assert page.count("<h3>") == 3, "what was tried is shown on a few tasks"
    assert "data:image/*;base64," in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["audit", "gone.jsonl"], "no such file"),
        (["audit", "digit_sum"], "did you mean digit_sums?"),
        (["audit", "digit_sums", "--ignore", "leaks"], "--ignore leaks: no such finding; there are bad-row, "),
        (["audit", "digit_sums", "rl.steps=2"], "only a recipe takes changes"),
        (["audit", "gone.yaml"], "gone.yaml"),
        (["audit", "plug.jsonl"], "is not built in, and a row of data runs no other code unless you allow it by name"),
        (["audit", "plug.jsonl", "--allow", "gone.py:f"], "reward 'gone.py:f': no such file"),
        (["score", "gone.jsonl"], "gone.jsonl: No such file"),
        (["score", "plug.jsonl", "--rewards", "formt"], "did you mean 'format'"),
        (["score", "plug.jsonl", "--rewards", "format=much"], "--rewards format=much: must be TERM or TERM=WEIGHT"),
        (["score", "plug.jsonl", "--column", "gold"], "--column gold: must be OURS=THEIRS"),
        (["score", "empty.jsonl"], "empty.jsonl: holds no line"),
    ],
)
def test_what_cannot_run_is_told_with_exit_code_2(here, monkeypatch, capsys, arguments, message):
    lines(here / "plug.jsonl", [{"question": "q", "answer": "5", "verifier": "gone.py:f"}])
    (here / "empty.jsonl").write_text("\n")
    assert thinkvl(*arguments, monkeypatch=monkeypatch) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")


ROWS = [
    {"response": "\\boxed{4}", "answer": "4", "source": "a"},
    {"responses": ["◁think▷ 2+2 ◁/think▷ 4", "5", ""], "answer": 4, "source": "a", "id": "x"},
    {"response": "B", "answer": "B", "choices": ["red", "blue"], "source": "b"},
    {"response": "[1, 2, 3, 4]", "answer": [1, 2, 3, 4], "verifier": "box", "source": "b"},
]


def test_score(here):
    lines(here / "r.jsonl", [*ROWS, ""])
    done = RUNNER.invoke(app, ["score", "r.jsonl", "--rewards", "format=0.5", "--rewards", "repetition(n=1)"])
    assert done.exit_code == 0, done.output
    records = [json.loads(line) for line in (here / "r.jsonl.verdicts.jsonl").read_text().splitlines()]
    assert [(r["line"], r["sample"], r["source"], r["kind"]) for r in records] == [
        (1, 0, "a", "correct"), (2, 0, "a", "correct"), (2, 1, "a", "wrong"), (2, 2, "a", "no_answer"),
        (3, 0, "b", "correct"), (4, 0, "b", "correct"),
    ]  # fmt: skip
    assert records[1]["parts"]["format"] == 1.0
    assert records[0]["reward"] == 1.0 + records[0]["parts"]["repetition"]
    table = [line.split("│")[1:-1] for line in done.output.splitlines() if "│" in line]
    figures = {row[0].strip(): [cell.strip() for cell in row[1:]] for row in table}
    assert figures["a"][:5] == ["4", "0.500", "2", "1", "1"]
    assert figures["all"][:5] == ["6", "0.667", "4", "1", "1"]
    assert "format" in done.output


def test_bad_lines_are_told_by_number_and_counted(here):
    bad = ["{", "[]", {"answer": "4"}, {"response": "4"}, {"response": 4, "answer": "4"},
           {"response": "4", "answer": ""},
           {"response": "4", "answer": "4", "choices": "AB"}, {"response": "4", "answer": "4", "verifier": "maths"},
           {"response": "4", "answer": "4", "verifier": "numeric(rel=7)"},
           {"response": "a", "responses": ["a"], "answer": "4"},
           {"response": "4", "answer": "4", "images": ["gone.png"]},
           "\ud800".encode("utf-8", "surrogatepass").decode("latin-1")]  # fmt: skip
    lines(here / "r.jsonl", [*ROWS, *bad])
    done = RUNNER.invoke(app, ["score", "r.jsonl"])
    assert done.exit_code == 1
    for number in range(len(ROWS) + 1, len(ROWS) + len(bad) + 1):
        assert f"line {number}: " in done.output
    assert "did you mean 'math'" in done.output
    assert f"{len(bad)} lines left out" in done.output
    assert len((here / "r.jsonl.verdicts.jsonl").read_text().splitlines()) == 6


def test_other_columns_a_recipe_and_a_plug_in(here):
    (here / "mine.py").write_text("def mine(response, reference, *, task):\n    return float('nan')\n")
    (here / "r.yaml").write_text(
        "name: r\noutput_dir: out\n"
        "stages: [{kind: rl, steps: 1, rewards: [{use: verifier}, {use: 'repetition(n=1)', weight: 2}]}]\n"
    )
    lines(here / "r.jsonl", [{"completion": "The answer is is 4.04", "truth": "4"}])
    options = ["--column", "response=completion", "--column", "answer=truth", "--verifier", "numeric(rel=0.01)"]
    done = RUNNER.invoke(app, ["score", "r.jsonl", "--recipe", "r.yaml", "--output", "v.jsonl", *options])
    assert done.exit_code == 0, done.output
    [record] = [json.loads(line) for line in (here / "v.jsonl").read_text().splitlines()]
    assert (record["kind"], record["parts"]["repetition"]) == (
        "correct",
        pytest.approx(-1 / 7),
    )
    done = RUNNER.invoke(app, ["score", "r.jsonl", "--rewards", "mine.py:mine=2", *options])
    assert done.exit_code == 1, "a plug-in that fails is no zero"
    assert "1 response without a reward: mine.py:mine/crash" in done.output
    record = json.loads((here / "r.jsonl.verdicts.jsonl").read_text().splitlines()[0])
    assert (record["reward"], record["failures"]["mine.py:mine"]["kind"]) == (None, "crash")


def test_neither_loads_torch_or_ray(here):
    lines(here / "r.jsonl", ROWS[:1])
    lines(here / "d.jsonl", [{"question": "What is 2 + 2?", "answer": "4"}])
    code = (
        "import sys, rl.cli.main\n"
        "for words in (['score', 'r.jsonl'], ['audit', 'd.jsonl']):\n"
        "    try: rl.cli.main.app(words)\n"
        "    except SystemExit as end: assert end.code == 0, (words, end.code)\n"
        "print([name for name in ('torch', 'ray', 'transformers', 'trl') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
