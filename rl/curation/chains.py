"""Turns a sample into a worked solution, or gives the reason why it is rejected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.extraction import THINK_MARKS, split_thinking
from rewards.shaping import repetition_penalties
from rewards.types import REWARD_KINDS
from rl.curation.sampling import ScoredCompletion
from rollouts.engines.repetition import find_loop

UNJUDGED = "the verifier failed"
WRONG = "wrong, or without an answer"
CUT_OFF = "cut off"
NO_THINKING = "without thinking"
REPEATS = "repeats itself"
CONTROL = "holds marks or control tokens"
TWIN = "the same as another"
LONGER = "longer than others"

_LOOP_WORDS = 48  # a chain of which so many words in a row are a phrase over and over is left out
_CONTROL = re.compile(r"<\|\w+\|>|</?answer>|" + "|".join(re.escape(mark) for pair in THINK_MARKS for mark in pair))


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A worked solution: the thinking and the answer."""

    thinking: str
    response: str
    tokens: int  # of the whole sample


def chain_of(sample: ScoredCompletion, *, most_repetition: float) -> Chain | str:
    """The chain of a sample whose answer verifies, or the reason why it is rejected.

    The thinking is the content of the think block, or without a block all lines but the last.
    `most_repetition` is the largest share of 4-grams that may repeat an earlier one.
    """
    if sample.verdict not in REWARD_KINDS:
        return UNJUDGED
    if not sample.correct:
        return WRONG
    if sample.finish_reason != "stop":
        return REPEATS if sample.finish_reason == "repeat" else CUT_OFF
    split = split_thinking(sample.text)
    if split.thought is None:
        thinking, _, response = sample.text.strip().rpartition("\n")
    else:
        thinking, response = split.thought, split.answer_text
    if not thinking.strip():
        return NO_THINKING
    if _CONTROL.search(thinking):
        return CONTROL
    if loops(thinking, most_repetition):
        return REPEATS
    return Chain(thinking=thinking.strip(), response=response.strip(), tokens=sample.tokens)


def loops(text: str, most_repetition: float) -> bool:
    """Whether more than `most_repetition` of the 4-grams of a text repeat an earlier one, or a part of it is a loop."""
    words = text.split()
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    found = find_loop([numbers[word] for word in words], window=_LOOP_WORDS)
    return found is not None or -repetition_penalties([text])[0] > most_repetition


def shortest(chains: Sequence[Chain], most: int) -> tuple[list[Chain], dict[str, int]]:
    """The `most` shortest distinct chains, shortest first, and the number of the others by reason."""
    unique = {chain.thinking: chain for chain in sorted(chains, key=lambda chain: (-chain.tokens, chain.thinking))}
    ordered = sorted(unique.values(), key=lambda chain: (chain.tokens, chain.thinking))
    return ordered[:most], {TWIN: len(chains) - len(unique), LONGER: max(0, len(unique) - most)}
