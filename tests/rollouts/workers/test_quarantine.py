"""Halving finds exactly the items that fail alone, whatever their number and place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.workers.quarantine import Failure, TooManyCulprits, find_culprits

FAILURE = Failure("death", "killed")


@given(st.integers(1, 40), st.sets(st.integers(0, 39), max_size=5))
def test_exactly_the_bad_ones_are_found(count, bad):
    bad = {i for i in bad if i < count} or {0}
    asked = []

    def attempt(part):
        asked.append(tuple(part))
        return FAILURE if bad & set(part) else None

    assert set(find_culprits(range(count), attempt, FAILURE, most=5)) == bad
    assert len(asked) <= 2 * len(bad) * count.bit_length()


def test_where_only_the_whole_fails_nobody_is_blamed():
    assert find_culprits(range(8), lambda part: None, FAILURE, most=1) == {}


def test_too_many_are_no_culprits():
    with pytest.raises(TooManyCulprits, match="3 of 100 fail alone; the last: killed"):
        find_culprits(range(100), lambda part: FAILURE, FAILURE, most=2)
