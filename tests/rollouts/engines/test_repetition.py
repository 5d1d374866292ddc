"""The loop rule by hand and against a plain search, and the engine's stop."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from engine_helpers import engine_of, requests_for, tokens_of
from hypothesis import given
from hypothesis import strategies as st

from configs.rl import SamplingConfig
from rollouts.engines.continuous_batching import BatchLimits
from rollouts.engines.repetition import find_loop


def plain(tokens, window, start=0):
    """The rule as it is written down."""
    for n in range(max(window, start + 1), len(tokens) + 1):
        last = tokens[n - window : n]
        for p in range(1, window // 2 + 1):
            if all(last[i] == last[i - p] for i in range(p, window)):
                return n
    return None


@pytest.mark.parametrize(
    ("tokens", "window", "expected"),
    [
        ([5, 5, 5, 5], 4, 4),
        ([5, 5, 5], 4, None),
        ([9, 5, 5, 5, 5, 5], 4, 5),  # the first place, not the last
        ([1, 2, 1, 2, 1, 2], 6, 6),
        ([1, 2, 1, 2, 1, 2], 3, None),  # a period of 2 is more than half the window
        ([1, 2, 3, 1, 2, 3, 1, 7], 7, 7),  # the third round is written in part
        ([1, 2, 3, 1, 2, 4, 1, 2], 6, None),
        ([], 4, None),
    ],
)
def test_by_hand(tokens, window, expected):
    assert find_loop(tokens, window=window) == expected


@given(
    tokens=st.lists(st.integers(0, 2), max_size=40),
    window=st.integers(2, 14),
    start=st.integers(0, 40),
)
def test_as_a_plain_search(tokens, window, start):
    assert find_loop(tokens, window=window, start=start) == plain(tokens, window, start)


FREE = SamplingConfig(temperature=0.7, max_new_tokens=60)
RULE = replace(FREE, repeat_window=11)


@pytest.fixture
def looping(tiny_model):
    """Engines that may write four words only: they soon go round in circles, some later than others, some never."""
    barred = [i for i in range(tiny_model.config.text_config.vocab_size) if i not in (20, 21, 22, 23)]
    return lambda **options: engine_of(tiny_model, ([], barred), stop_ids=[], **options)


@pytest.mark.parametrize("rows", [2, 64])
def test_an_answer_in_a_loop_ends_where_the_loop_is_complete(looping, prompts, rows):
    requests = requests_for(prompts, n=6)
    whole = [c for group in looping().generate(requests, FREE) for c in group]
    engine = looping(limits=BatchLimits(rows=rows), record_experts=True)
    seen = Counter()
    for completion, free in zip([c for g in engine.generate(requests, RULE) for c in g], whole, strict=True):
        end = plain(free.token_ids.tolist(), 11)
        assert completion.finish_reason == (free.finish_reason if end is None else "repeat")
        assert completion.token_ids.tolist() == free.token_ids[:end].tolist()
        assert len(completion.policy_logprobs) == len(completion.routed_experts) == len(completion.token_ids)
        assert completion.segments[-1].stop == len(completion.token_ids)
        seen[completion.finish_reason] += 1
    assert min(seen["repeat"], seen["length"]) >= 3, f"{seen}: the test needs some that loop and some that do not"


def test_going_on_finds_the_loop_at_the_same_place(looping, prompts):
    engine = looping()
    requests = requests_for(prompts, n=6)
    whole = engine.generate(requests, RULE)
    pieces = [replace(r, budget=7) for r in requests]
    for _ in range(9):
        results = engine.generate(pieces, RULE)
        pieces = [replace(r, prefixes=tuple(g)) for r, g in zip(pieces, results, strict=True)]
    assert tokens_of(results) == tokens_of(whole)
    assert [[c.finish_reason for c in g] for g in results] == [[c.finish_reason for c in g] for g in whole]


@pytest.mark.parametrize("window", [1, -4])
def test_a_window_of_less_than_two_rounds_is_refused(window):
    with pytest.raises(ValueError, match=f"repeat_window = {window}: must be 0"):
        SamplingConfig(repeat_window=window)


def test_off_by_default():
    assert SamplingConfig().repeat_window == 0
    assert np.all([find_loop([1] * n, window=4) == (4 if n >= 4 else None) for n in range(8)])
