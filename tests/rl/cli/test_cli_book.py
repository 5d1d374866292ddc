"""`thinkvl book`: the stage that it chooses, the file that it writes, and mistakes."""

import pytest
from cli_helpers import RECIPE, scored

from rewards.types import Task, VerdictKind
from rl.rollout_log import RolloutLog


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(output_dir=folder))
    task = Task(id="t", source="sums", question="2+2?", answer="4")
    for step in (1, 2):
        rows = [[scored(task, "4", VerdictKind.CORRECT, 1.0), scored(task, "5", VerdictKind.WRONG, 0.0)]]
        RolloutLog(folder / "rl" / "rollouts").write(step, rows, [], [])
    return folder


def test_the_book_of_the_last_stage_with_rollouts(thinkvl, run):
    code, output, errors = thinkvl("book", run)
    assert (code, errors) == (0, "")
    assert "4 rollouts of 2 questions in 2 of 2 steps, 0 images" in output
    assert "<title>" in (run / "book-rl.html").read_text(encoding="utf-8")


def test_steps_task_and_file_can_be_chosen(thinkvl, run, tmp_path):
    code, output, _ = thinkvl("book", run, "--step", "2", "--output", tmp_path / "mine.html")
    assert code == 0
    assert "2 rollouts of 1 question in 1 of 2 steps" in output
    assert (tmp_path / "mine.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--step", "9"), "--step 9: the log has no such step; it has 2, from 1 to 2"),
        (("--stage", "sft"), "--stage sft: has no rollouts; the stages with rollouts are rl"),
        (("--task", "u"), "holds no rollout of the task 'u'"),
    ],
)
def test_mistakes_are_told(thinkvl, run, arguments, told):
    code, _, errors = thinkvl("book", run, *arguments)
    assert code == 1
    assert told in errors
    assert not (run / "book-rl.html").exists()


def test_a_folder_that_is_no_run(thinkvl, tmp_path):
    code, _, errors = thinkvl("book", tmp_path)
    assert code == 1
    assert "no run is there (no recipe.yaml)" in errors
