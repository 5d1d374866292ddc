"""Rows with a list of accepted answers: any of them is right, and SFT trains the first."""

import json

import pytest

from rewards.scorer import Scorer
from rollouts.tasks.dataset import DatasetTasks
from rollouts.tasks.prompts import target_text


@pytest.fixture
def task_of(tmp_path):
    def make(answer, verifier="text"):
        row = {"question": "Which animal?", "answer": answer, "verifier": verifier}
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        return DatasetTasks("rows.jsonl", base=tmp_path).task(0, 0)

    return make


def test_any_of_them_is_right(task_of, tmp_path):
    task = task_of(["cat", "kitty", "猫"])
    with Scorer((), base=tmp_path) as scorer:
        kinds = [score.verdict.kind for score in scorer.score(["cat", "Kitty", "猫", "dog"], [task] * 4)]
    assert kinds == ["correct", "correct", "correct", "wrong"]


def test_numbers_are_accepted_as_they_are_written(task_of, tmp_path):
    task = task_of([0.5, 50], verifier="math")
    with Scorer((), base=tmp_path) as scorer:
        kinds = [s.verdict.kind for s in scorer.score([r"\boxed{1/2}", r"\boxed{50}", r"\boxed{5}"], [task] * 3)]
    assert kinds == ["correct", "correct", "wrong"]


def test_sft_trains_the_first(task_of):
    assert target_text(task_of(["cat", "kitty"]), thinking=False) == "cat"
    assert task_of(["cat"]).answer == "cat"
