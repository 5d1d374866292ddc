"""The written rows of `benchmarks/cases`: every category has answers that are right and answers that are wrong."""

import json
from pathlib import Path

import pytest

from rewards.sandbox.pool import WorkerPool
from rewards.types import Task, VerdictKind
from rewards.verifiers.choice import ChoiceVerifier
from rewards.verifiers.math import MathVerifier

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks" / "cases"


def load(name):
    with (FOLDER / name).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


MATH, CHOICE = load("math_cases.jsonl"), load("mcq_cases.jsonl")


@pytest.fixture(scope="module")
def worker():
    worker = WorkerPool(seconds=20.0)
    yield worker
    worker.close()


@pytest.mark.parametrize("category", sorted({row["category"] for row in MATH}))
def test_maths(worker, category):
    verify = MathVerifier(worker)
    missed = []
    for row in MATH:
        if row["category"] == category:
            response = f"Thus $\\boxed{{{row['answer']}}}$." if row["form"] == "bare" else row["answer"]
            verdict = verify(response, row["gold"], task=Task(id="", source="", question="", answer=row["gold"]))
            if (verdict.kind is VerdictKind.CORRECT) != row["expect"] or not verdict.is_reward:
                missed.append((row["gold"], row["answer"], verdict.kind.value, verdict.rule))
    assert missed == []


@pytest.mark.parametrize("category", sorted({row["category"] for row in CHOICE}))
def test_choice(worker, category):
    choose = ChoiceVerifier(worker)
    missed = []
    for row in CHOICE:
        if row["category"] == category:
            found = choose.commitment(row["response"], tuple(row["choices"].values()))
            letter = None if found.index is None else "ABCDEFGHIJ"[found.index]
            if letter != row["expect_letter"]:
                missed.append((row["response"], letter, found.rule))
    assert missed == []


def test_every_reference_equals_itself_and_its_harmless_rewritings(worker):
    verify = MathVerifier(worker)
    missed = []
    for gold in sorted({row["gold"] for row in MATH}):
        for answer in (gold, f" {gold} ", f"{gold}.", f"${gold}$" if "$" not in gold else gold):
            verdict = verify(f"\\boxed{{{answer}}}", gold, task=Task(id="", source="", question="", answer=gold))
            if verdict.kind is not VerdictKind.CORRECT:
                missed.append((gold, answer, verdict.rule))
    assert missed == []


def test_every_category_has_both_kinds():
    for category in {row["category"] for row in MATH}:
        kinds = {row["expect"] for row in MATH if row["category"] == category}
        assert kinds == {True, False} or category in ("hedge", "malformed_latex", "extraction_language"), category


def test_most_are_settled_without_the_worker():
    class Counting:
        calls = 0

        def call(self, request, *, seconds=None):
            self.calls += 1
            return {"outcome": "different"}

        def close(self):
            pass

    worker = Counting()
    verify = MathVerifier(worker)
    for row in MATH:
        verify(f"\\boxed{{{row['answer']}}}", row["gold"], task=Task(id="", source="", question="", answer=""))
    assert worker.calls < len(MATH) / 20
