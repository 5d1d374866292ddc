"""Partial credit for a number with some digits right."""

from __future__ import annotations

from rewards import Task
from rewards.extraction import extract_answer


def digit_distance(response: str, reference: str, *, task: Task) -> dict[str, float]:
    """Two parts in [0, 0.5]: does the answer have as many digits as the reference, and how many of them agree."""
    answer = (extract_answer(response).answer or "").strip()
    if not answer or len(answer) > 40:
        return {"length": 0.0, "digits": 0.0}
    same = sum(a == b for a, b in zip(answer, reference, strict=False))
    return {
        "length": 0.5 * (len(answer) == len(reference)),
        "digits": 0.5 * same / max(len(answer), len(reference)),
    }
