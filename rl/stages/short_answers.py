"""Which of a question's samples train a shorter model: the shortest correct one, and the pairs of DPO (k1.5 §2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LONGER = 1.5  # a correct sample at least so many times as long as the chosen one is rejected (k1.5 §2.4)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledAnswer:
    """One sample of a question, read back from the log of rollouts."""

    task: str  # the question's id
    prompt_tokens: int
    token_ids: np.ndarray  # [T] int64
    correct: bool
    finished: bool  # the model ended it by itself

    def __len__(self) -> int:
        """Its length in tokens."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerPair:
    """Two samples of one question, of which the shorter is preferred."""

    chosen: SampledAnswer
    rejected: SampledAnswer


def shortest_correct(group: Sequence[SampledAnswer]) -> SampledAnswer | None:
    """The shortest correct sample that ended by itself, the first of several; None where there is none."""
    candidates = [answer for answer in group if answer.correct and answer.finished and len(answer)]
    return min(candidates, key=len, default=None)


def preference_pairs(group: Sequence[SampledAnswer]) -> list[AnswerPair]:
    """The shortest correct sample against each longer wrong one, and each correct one at least `LONGER` times as long.

    Samples without a verdict must not be among them.
    """
    chosen = shortest_correct(group)
    if chosen is None:
        return []
    least = LONGER * len(chosen)
    rejected = [own for own in group if len(own) >= least or (not own.correct and len(own) > len(chosen))]
    return [AnswerPair(chosen=chosen, rejected=own) for own in rejected]
