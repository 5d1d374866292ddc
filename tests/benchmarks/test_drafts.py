"""The replay of `benchmarks/drafts.py`, counted by hand."""

import runpy
import sys

import pytest

COST = [float(rows) for rows in (1, 2, 4, 8, 16, 32, 64, 128)]  # a row costs one second


@pytest.fixture(scope="module")
def drafts(folder):
    before = list(sys.path)
    yield runpy.run_path(str(folder / "drafts.py"), run_name="drafts")
    sys.path[:] = before


def test_a_draft_is_what_followed_the_longest_end_elsewhere(drafts):
    draft_of = drafts["draft_of"]
    assert draft_of([7, 1, 2], [[1, 2, 3, 4, 5, 6, 9], [7, 1, 2, 8]]) == [8]  # three tokens before two
    assert draft_of([0, 1, 2], [[1, 2, 3, 4, 5, 6, 9]]) == [3, 4, 5, 6]
    assert draft_of([0, 2], [[1, 2, 3]]) == []
    assert draft_of([2], [[2, 3]]) == []


def test_right_drafts_save_passes_and_wrong_ones_cost_rows(drafts):
    """The longer sample repeats the shorter one's six tokens after a start of its own."""
    replay, short = drafts["replay"], [1, 2, 3, 4, 5, 6]
    right, wrong = [[short, [9, 9, *short, 7]]], [[short, [9, 9, 1, 2, 10, 11, 12, 13, 14]]]
    plain = replay(right, COST, most=0)
    assert (plain.passes, plain.seconds, plain.drafted) == (9, 6 * 2 + 3, 0)
    found = replay(right, COST, most=2)
    assert (found.passes, found.drafted, found.accepted) == (7, 2, 2)
    assert found.seconds == 4 * 2 + (2 + 2) + 2 + 1
    missed = replay(wrong, COST, most=2)
    assert (missed.accepted, missed.passes) == (0, 9)
    assert missed.seconds == 15 + missed.drafted > 15


def test_the_share_of_a_common_text_decides(drafts):
    """With the measured cost of rows, drafts do not pay where half of the tokens follow a text; at 95 % they do."""
    cost = [3.3, 4.1, 4.9, 6.5, 8.0, 10.2, 20.8, 33.8]
    (half, half_drafts), (most, most_drafts) = (
        [drafts["replay"](drafts["made"](share, groups=4, mean=20), cost, most=rows).seconds for rows in (0, 8)]
        for share in (0.5, 0.95)
    )
    assert half_drafts > 0.99 * half
    assert most_drafts < 0.85 * most
