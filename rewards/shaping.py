"""Rewards that do not look at the reference: format, and length in k1.5's way. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.extraction import split_thinking


def format_reward(text: str) -> float:
    """1.0 where `text` is a closed, non-empty think block followed by a non-empty answer, else 0.0.

    A response that answers without thinking gets 0: the format that is asked for is the thinking one.
    """
    thinking = split_thinking(text)
    thought = (thinking.thought or "").strip()
    return float(thinking.closed and bool(thought) and bool(thinking.answer_text.strip()))


def length_rewards(lengths: Sequence[int], corrects: Sequence[bool]) -> list[float]:
    """Length reward of the responses to one prompt (Kimi k1.5, arXiv:2501.12599, §2.3.3), each in [-0.5, 0.5].

    With `lambda_i = 0.5 - (len_i - min_len) / (max_len - min_len)` a correct response gets `lambda_i` and a wrong one
    `min(0, lambda_i)`; all get 0 where every length is the same. `lengths` is in tokens.

    Raises ValueError where the two lists differ in length.
    """
    if len(lengths) != len(corrects):
        raise ValueError(f"{len(lengths)} lengths for {len(corrects)} verdicts: give one of each for every response")
    if not lengths or max(lengths) == min(lengths):
        return [0.0] * len(lengths)
    shortest, spread = min(lengths), max(lengths) - min(lengths)
    scaled = [0.5 - (length - shortest) / spread for length in lengths]
    return [value if correct else min(0.0, value) for value, correct in zip(scaled, corrects, strict=True)]


def overlong_penalty(length: int, *, limit: int, buffer: int) -> float:
    """Soft punishment of long answers (DAPO, arXiv:2503.14476, §3.4, eq. 13), in [-1, 0].

    0 up to `limit - buffer` tokens, then linearly down to -1 at `limit`. A `buffer` of 0 punishes nothing.
    """
    excess = length - (limit - buffer)
    return -min(1.0, excess / buffer) if buffer > 0 and excess > 0 else 0.0
