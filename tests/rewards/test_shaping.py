"""Format and length rewards against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.shaping import format_reward, length_rewards


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("◁think▷ 1 + 1 ◁/think▷ 2", 1.0),
        ("1 + 1 ◁/think▷ 2", 1.0),  # the prompt opened the block
        ("2", 0.0),
        ("◁think▷ 1 + 1 ◁/think▷  ", 0.0),
        ("◁think▷  ◁/think▷ 2", 0.0),
        ("◁think▷ 1 + 1", 0.0),
        ("◁think▷ 1 ◁/think▷ 2 ◁think▷", 0.0),
        ("", 0.0),
    ],
)
def test_format(text, reward):
    assert format_reward(text) == reward


def test_length_by_hand():
    # min 100, max 300: lambda = 0.5 - (len - 100) / 200 = 0.5, 0.25, 0, -0.5
    lengths = [100, 150, 200, 300]
    assert length_rewards(lengths, [True] * 4) == [0.5, 0.25, 0.0, -0.5]
    assert length_rewards(lengths, [False] * 4) == [0.0, 0.0, 0.0, -0.5]
    assert length_rewards(lengths, [False, True, False, True]) == [0.0, 0.25, 0.0, -0.5]


def test_equal_lengths_and_small_groups_get_nothing():
    assert length_rewards([7, 7, 7], [True, False, True]) == [0.0, 0.0, 0.0]
    assert length_rewards([7], [True]) == [0.0]
    assert length_rewards([], []) == []


def test_lists_must_agree():
    with pytest.raises(ValueError, match="2 lengths for 1 verdicts"):
        length_rewards([1, 2], [True])


@given(st.lists(st.tuples(st.integers(0, 10**6), st.booleans()), min_size=1, max_size=20))
def test_length_properties(pairs):
    lengths, corrects = [p[0] for p in pairs], [p[1] for p in pairs]
    rewards = length_rewards(lengths, corrects)
    assert all(-0.5 <= r <= 0.5 for r in rewards)
    assert all(r <= 0.0 for r, c in zip(rewards, corrects, strict=True) if not c)
    shortest = [r for r, n, c in zip(rewards, lengths, corrects, strict=True) if c and n == min(lengths)]
    assert all(r == max(rewards) for r in shortest)
