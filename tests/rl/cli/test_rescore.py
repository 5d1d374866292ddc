"""`thinkvl rescore` over rollouts that were written by hand: another reward, the same one, and mistakes."""

import pyarrow.parquet as pq
import pytest
from cli_helpers import RECIPE, scored

from rewards.types import Task, VerdictKind
from rl.cli.score import split_terms
from rl.rollout_log import RolloutLog


@pytest.fixture
def run(tmp_path):
    """Three rollouts; the second was held to be wrong, though 4.0 is 4, and the third had no verdict."""
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(output_dir=folder))
    task = Task(id="t", source="sums", question="2+2?", answer="4", images=(b"png",))
    other = Task(id="u", source="others", question="3+3?", answer="6")
    log = RolloutLog(folder / "rl" / "rollouts")
    log.write(1, [[scored(task, "4", VerdictKind.CORRECT, 1.0), scored(task, "4.0", VerdictKind.WRONG, 0.0)]], [], [])
    log.write(2, [[scored(other, "5", VerdictKind.TIMEOUT, None)]], [], [])
    return folder


def rows(output):
    lines = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in output.splitlines() if "│" in line]
    return [line for line in lines if len(line) == 6]


def test_the_runs_own_rewards_with_the_verifiers_of_today(thinkvl, run):
    code, output, errors = thinkvl("rescore", run)
    assert (code, errors) == (0, "")
    assert rows(output) == [
        ["others", "timeout", "wrong *", "1", "-", "0.000"],
        ["sums", "correct", "correct", "1", "1.000", "1.000"],
        ["sums", "wrong", "correct *", "1", "0.000", "1.000"],
        ["all", "", "", "3", "0.500", "0.667"],
    ]
    assert "2 of 3 verdicts changed" in output


def test_a_reward_of_ones_own_reads_the_task_and_its_image(thinkvl, run, tmp_path):
    (tmp_path / "mine.py").write_text(
        "def seen(response, reference, *, task):\n    return float(task.images == (b'png',)) + len(response)\n"
    )
    code, output, _ = thinkvl("rescore", run, "--rewards", "verifier=2,mine.py:seen=0.5", "--output", "new.parquet")
    assert code == 0
    assert "2 verifier + 0.5 mine.py:seen" in output
    table = pq.read_table(tmp_path / "new.parquet").to_pylist()
    assert [r["new_reward"] for r in table] == [2 + 0.5 * 2, 2 + 0.5 * 4, 0.5 * 1]
    assert [(r["step"], r["group"], r["sample"], r["old_reward"]) for r in table] == [
        (1, 0, 0, 1.0),
        (1, 0, 1, 0.0),
        (2, 0, 0, None),
    ]


def test_terms_with_options_are_read_as_score_reads_them(thinkvl, run):
    code, output, errors = thinkvl("rescore", run, "--rewards", "verifier, repetition(n=6)=0.5")
    assert (code, errors) == (0, "")
    assert "1 verifier + 0.5 repetition(n=6)" in output
    assert split_terms("a=1,b(n=1,m=2)=3, c(x=1)") == ["a=1", "b(n=1,m=2)=3", " c(x=1)"]


def test_the_recipes_judge_is_there(thinkvl, run):
    """Equal words need no question, so nobody has to listen where the judge is said to be."""
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(
        recipe.replace("- kind: rl\n", "- kind: rl\n    judge: {url: 'http://127.0.0.1:9/v1', model: m}\n", 1)
    )
    task = Task(id="v", source="judged", question="What?", answer="navy", verifier="judge")
    RolloutLog(run / "rl" / "rollouts").write(3, [[scored(task, "navy", VerdictKind.WRONG, 0.0)]], [], [])
    code, output, errors = thinkvl("rescore", run)
    assert (code, errors) == (0, "")
    assert ["judged", "wrong", "correct *", "1", "0.000", "1.000"] in rows(output)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "nothing: no run is there (no recipe.yaml)"),
        (["runs/a", "--rewards", "format=much"], "--rewards format=much: must be TERM or TERM=WEIGHT"),
        (["runs/a", "--rewards", "format=0"], "--rewards format=0: must be TERM or TERM=WEIGHT"),
        (["runs/a", "--rewards", "formatt"], "formatt"),
    ],
)
def test_mistakes_are_told_with_exit_code_1(thinkvl, run, arguments, told):
    code, _, errors = thinkvl("rescore", *arguments)
    assert code == 1
    assert told in errors
    assert "Traceback" not in errors


def test_a_run_without_rollouts(thinkvl, run_folder):
    code, _, errors = thinkvl("rescore", run_folder)
    assert code == 1
    assert "this run has no rollouts yet" in errors


def test_a_run_folders_own_code_and_judge_must_be_allowed(thinkvl, run):
    """The folder may come from somebody else: nothing that its recipe names runs, and no key is sent, unasked."""
    recipe = (run / "recipe.yaml").read_text()
    mark = run / "ran"
    (run / "evil.py").write_text(f"open({str(mark)!r}, 'w')\ndef f(response, reference, *, task):\n    return 1.0\n")
    name = f"{run}/evil.py:f"
    change = f"- kind: rl\n    rewards: [{{use: verifier}}, {{use: '{name}', in_process: true}}]\n"
    change += "    judge: {url: 'http://127.0.0.1:9/v1', model: m, key_env: HOME}\n"
    assert "- kind: rl\n" in recipe
    (run / "recipe.yaml").write_text(recipe.replace("- kind: rl\n", change))
    code, _, errors = thinkvl("rescore", run)
    assert (code, mark.exists()) == (1, False)
    assert f"--allow '{name}' --allow 'http://127.0.0.1:9/v1'" in errors.replace("\n", "")
    assert thinkvl("rescore", run, "--rewards", "verifier", "--allow", "http://127.0.0.1:9/v1")[0] == 0
    assert not mark.exists()
    assert thinkvl("rescore", run, "--allow", name, "--allow", "http://127.0.0.1:9/v1")[0] == 0
    assert mark.exists()
