"""pass@k, maj@k and their intervals: by hand, and the properties that must hold for any verdicts."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.types import Verdict, VerdictKind
from rl.run.accuracy import bootstrap, estimates, majority, pass_at_k

RIGHT, WRONG, NONE, CRASH = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.CRASH


def verdict(kind, extracted=None):
    return Verdict(kind=kind, score=float(kind is RIGHT), extracted=extracted)


def verdicts(text):
    """`R` is correct; a small letter is the wrong answer of that name; `-` is no answer, `!` a crash."""
    kinds = {"R": RIGHT, "-": NONE, "!": CRASH}
    return [verdict(kinds.get(c, WRONG), None if c in "-!" else c) for c in text]


def test_pass_at_k_by_hand():
    assert pass_at_k(4, 1, 1) == 0.25
    assert pass_at_k(4, 1, 2) == pytest.approx(1 - 3 / 6)
    assert pass_at_k(5, 2, 3) == pytest.approx(1 - 1 / 10)
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 2, 3) == 1.0, "only two are wrong"
    with pytest.raises(ValueError, match="from 1 to n = 3"):
        pass_at_k(3, 1, 4)


@given(st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_correct_one_and_rises_in_k(case):
    n, correct = case
    values = [pass_at_k(n, correct, k) for k in range(1, n + 1)]
    for k, value in enumerate(values, 1):
        subsets = list(combinations([True] * correct + [False] * (n - correct), k))
        assert value == pytest.approx(np.mean([any(s) for s in subsets]))
    assert values[0] == pytest.approx(correct / n)
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("RRa", 1.0),
        ("Raa", 0.0),
        ("Rab", 1 / 3),
        ("RRaa", 0.5),
        ("R---", 1.0),
        ("----", 0.0),
        ("a", 0.0),
        ("R", 1.0),
    ],
)
def test_majority_by_hand(text, expected):
    assert majority(verdicts(text)) == pytest.approx(expected)


def test_correct_completions_vote_together_and_wrong_ones_without_a_text_alone():
    equal = [verdict(RIGHT, "1/2"), verdict(RIGHT, "0.5"), verdict(WRONG, "2"), verdict(WRONG, " 2")]
    assert majority(equal) == 0.5
    assert majority([verdict(RIGHT, "1"), verdict(RIGHT, "1"), *[verdict(WRONG)] * 3]) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 2**32))
def test_an_interval_holds_its_mean_and_is_the_same_for_the_same_seed(values, seed):
    estimate = bootstrap(values, seed=seed)
    assert estimate.value == pytest.approx(np.mean(values))
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate == bootstrap(values, seed=seed)
    assert bootstrap([*values, math.nan], seed=seed) == estimate


def test_an_interval_is_that_of_the_normal_distribution_for_many_tasks():
    values = [1.0] * 300 + [0.0] * 100
    error = math.sqrt(0.75 * 0.25 / 400)
    estimate = bootstrap(values, seed=0)
    assert (estimate.low, estimate.high) == pytest.approx((0.75 - 1.96 * error, 0.75 + 1.96 * error), abs=0.006)
    assert math.isnan(bootstrap([], seed=0).value)


def test_where_all_tasks_are_wrong_or_all_right_the_interval_is_wilsons():
    wrong, right = bootstrap([0.0] * 20, seed=0), bootstrap([1.0] * 20, seed=0)
    z2 = 1.96**2
    assert (wrong.low, wrong.high) == (0.0, pytest.approx(z2 / (20 + z2)))  # 0.161
    assert (right.low, right.high) == (pytest.approx(20 / (20 + z2)), 1.0)


def test_estimates_by_hand():
    """Four samples of three tasks; a crash leaves the third with three, and so out of k = 4."""
    sampled = [verdicts("Raaa"), verdicts("RRRR"), verdicts("R!bb")]
    found = estimates([verdicts("R"), verdicts("a"), verdicts("!")], sampled, seed=0)
    assert list(found) == ["greedy", "pass@1", "pass@2", "maj@2", "pass@4", "maj@4"]
    assert found["greedy"].value == 0.5
    assert found["pass@1"].value == pytest.approx((1 / 4 + 1 + 1 / 3) / 3)
    assert found["pass@2"].value == pytest.approx((1 / 2 + 1 + 2 / 3) / 3)
    assert found["maj@2"].value == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert found["pass@4"].value == 1.0
    assert found["maj@4"].value == 0.5
    assert {name: estimate.tasks for name, estimate in found.items()} == {
        "greedy": 2,
        "pass@1": 3,
        "pass@2": 3,
        "maj@2": 3,
        "pass@4": 2,
        "maj@4": 2,
    }
    assert list(estimates([verdicts("R")], [], seed=0)) == ["greedy"]
