"""What verdicts and texts say of scored rollouts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from rewards.extraction import split_thinking
from rewards.types import Verdict, VerdictKind


def thinks(text: str) -> bool:
    """True if the response holds a closed, non-empty think block."""
    thinking = split_thinking(text)
    return thinking.closed and bool((thinking.thought or "").strip())


def accuracy(verdicts: Iterable[Verdict]) -> float:
    """Share of correct rollouts among those with a verdict; NaN where there are none. A failed verifier has none."""
    judged = [verdict.kind is VerdictKind.CORRECT for verdict in verdicts if verdict.is_reward]
    return float(np.mean(judged)) if judged else float("nan")
