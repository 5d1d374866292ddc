"""Composed responses: a right answer written otherwise stays right; another digit, sign, unit or letter is wrong.

`benchmarks/fuzz_verifiers.py` composes them, and runs for as long as it is told; here are the first ones of two seeds.
"""

import sys
from itertools import islice
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))
from fuzz_verifiers import compose, failures


@pytest.mark.parametrize("seed", ["one", "two"])
def test_composed_responses(scorer, seed):
    missed = failures(scorer, list(islice(compose(seed), 3_000)))
    assert not missed, "\n".join(f"{case.kind} {case.task.answer!r}: {case.response!r}: {why}" for case, why in missed)


def test_every_maker_is_drawn():
    kinds = {case.kind for case in islice(compose("kinds"), 5_000)}
    assert len(kinds) > 80
    assert {kind.rpartition(" ")[2] for kind in kinds} == {"right", "wrong"}
