"""Format, length, repetition and language against numbers worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.shaping import (
    format_reward,
    language_penalties,
    length_rewards,
    repetition_penalties,
)


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


def test_repetition_by_hand():
    # 2-grams of "a b a b a": ab ba ab ba, two of four repeat; "a b c": none; "a" has none
    assert repetition_penalties(["a b a b a", "a b c", "A b. a B.", "a", ""], n=2) == [-0.5, 0.0, -0.4, 0.0, 0.0]
    assert repetition_penalties(["是是是是是"], n=1) == [1 / 5 - 1]  # five characters, one of them new
    assert repetition_penalties(["wait " * 1000])[0] < -0.99
    with pytest.raises(ValueError, match="n = 0"):
        repetition_penalties(["a"], n=0)


@pytest.mark.parametrize(
    ("text", "question", "penalty"),
    [
        ("The shape is red", "What is it?", 0.0),
        ("The shape 是红的", "What is it?", -3 / 5),  # the, shape, and three characters
        ("The shape 是红的", "这是什么 shape?", 0.0),
        ("Das ist rot", "What is it?", 0.0),  # one script, so not seen
        ("Это red", "What is it?", -1 / 2),
        ("設 x = 3 cm, \\frac{a}{b}, α", "求 x", 0.0),
        ("これは猫です", "猫はどこ?", 0.0),
        ("这是猫", "猫はどこ?", 0.0),
        ("猫はどこ", "这是什么", -3 / 4),
        ("◁think▷ 12 ◁/think▷ 12", "What?", 0.0),
        ("anything", "7 + 4 = ?", 0.0),
        ("", "What?", 0.0),
    ],
)
def test_language_by_hand(text, question, penalty):
    assert language_penalties([text], [question]) == [pytest.approx(penalty)]


def test_language_needs_both_lists():
    with pytest.raises(ValueError, match="1 texts for 2 questions"):
        language_penalties(["a"], ["b", "c"])


@given(st.lists(st.text(max_size=40), max_size=5), st.text(max_size=20), st.integers(1, 5))
def test_penalties_stay_in_their_range(texts, question, n):
    assert all(-1 < value <= 0 for value in repetition_penalties(texts, n=n))
    assert all(-1 <= value <= 0 for value in language_penalties(texts, [question] * len(texts)))
    assert language_penalties(texts, texts) == [0.0] * len(texts)
