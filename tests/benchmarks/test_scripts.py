"""Every benchmark script still runs: its imports and options here, its `--quick` among the slow tests."""

import ast
import json
import os
import subprocess
import sys

import pytest

QUICK = (
    *("gpu", "learner", "end_to_end", "experts", "verifiers", "publish", "engines", "asynchronous", "reward_pool"),
    *("quickstart", "compare_algorithms", "critic", "plan", "elastic", "book", "scaling", "reward_hacks", "imports"),
    *("drafts", "eta", "rendering", "driver", "learner_floor", "decoding"),
)
# They need a trained model, a fuzzer or data that are no dependency, hours, or outputs that others have published.
OTHERS = ("errors", "fuzz_extraction", "fuzz_verifiers", "official_rules", "recipe")
HELP = """
import contextlib, io, json, runpy, sys
found = {}
for path in sys.argv[1:]:
    sys.argv = [path, "--help"]
    text = io.StringIO()
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            found[path] = [end.code, text.getvalue()]
print(json.dumps(found))
"""


def run(arguments, timeout):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=timeout, env=environment
    )


def is_script(path):
    return any("__main__" in ast.unparse(s.test) for s in ast.parse(path.read_text()).body if isinstance(s, ast.If))


def test_every_script_is_named_here_and_in_the_make_target(folder):
    assert {path.stem for path in folder.glob("*.py") if is_script(path)} == {*QUICK, *OTHERS}
    makefile = (folder.parent / "Makefile").read_text(encoding="utf-8")
    (line,) = [line for line in makefile.splitlines() if line.startswith("QUICK_BENCHMARKS")]
    assert set(line.split(":=")[1].split()) == set(QUICK)


def test_imports_and_options_of_every_script(folder):
    paths = [folder / f"{name}.py" for name in QUICK]
    finished = run(["-c", HELP, *paths], timeout=250)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    assert list(found) == list(map(str, paths))
    for path, (code, text) in found.items():
        assert code in (None, 0), path
        assert "--quick" in text, path


def test_the_comparison_refuses_what_an_algorithm_cannot_do_before_it_trains(folder, tmp_path):
    finished = run([folder / "compare_algorithms.py", "--steps", "4", "--output", tmp_path], timeout=100)
    assert finished.returncode == 2
    assert "pretrain_steps = 4: must be below steps = 4" in finished.stderr
    assert not [*tmp_path.iterdir()]


def test_the_interval_of_the_remaining_time_holds_the_truth_in_nine_of_ten_simulated_runs(folder):
    finished = run([folder / "eta.py", "--quick"], timeout=100)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    assert 0.88 <= found["coverage"] <= 0.96
    assert found["high_to_low"] < 2.5, "an interval that says nothing is easy to keep"
    assert min(found["by_kind"].values()) > 0.7


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["learner", "end_to_end", "imports", "verifiers", "publish", "engines", "drafts", "reward_pool"]
)
def test_quick_runs_end_with_a_line_of_json(folder, name):
    finished = run([folder / f"{name}.py", "--quick"], timeout=280)
    assert finished.returncode == 0, finished.stderr[-2000:]
    last = json.loads(finished.stdout.splitlines()[-1])
    assert any(isinstance(value, int | float) for value in last.values())


@pytest.mark.slow
def test_most_of_the_planted_hacks_are_caught_at_once_and_no_honest_policy_is_suspected(folder):
    finished = run([folder / "reward_hacks.py", "--quick"], timeout=280)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    assert (found["hacks"], found["honest"]) == (10, 10)
    assert found["caught"] >= 8
    assert found["false_alarms_of_hacks"] + found["false_alarms_of_honest"] == 0
    assert found["median_steps"] <= 10
    assert found["named_rollouts_that_cheat"] >= 0.7


@pytest.mark.slow
def test_the_comparison_runs_and_critic_py_reads_its_runs(folder, tmp_path):
    finished = run([folder / "compare_algorithms.py", "--quick", "--output", tmp_path], timeout=280)
    assert finished.returncode == 0, finished.stderr[-2000:]
    found = json.loads(finished.stdout.splitlines()[-1])
    assert found["algorithms"] == 2
    finished = run([folder / "critic.py", tmp_path / "quick" / "steps-5" / "ppo-seed-0", "--quick"], timeout=280)
    assert finished.returncode == 0, finished.stderr[-2000:]
    again = json.loads(finished.stdout.splitlines()[-1])
    assert again["validation/accuracy"] == found["critic/validation/accuracy"]


def test_our_verdicts_beside_published_ones(folder, tmp_path):
    rows = [
        {"id": "1", "response": "So it is \\boxed{60}.", "correct": True},
        {"id": "2", "response": "The answer is (B).", "correct": True},
        {"id": "2", "response": "\\boxed{A}", "correct": True},
    ]
    data = [
        {"id": "1", "question": "Which number?", "options": [], "answer": "60", "image": "images/1.jpg"},
        {"id": "2", "question": "Which bike?", "options": list("ABCDE"), "answer": "B", "image": "images/2.jpg"},
    ]
    for name, lines in (("outputs.jsonl", rows), ("test.jsonl", data)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    script = folder / "official_rules.py"
    finished = run([script, "mathvision", tmp_path / "outputs.jsonl", "--data", tmp_path / "test.jsonl"], timeout=100)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert (found["responses"], found["official"], found["ours"]) == (3, 1.0, 0.6667)
    assert (found["ours_alone_right"], found["official_alone_right"]) == (0, 1)
