"""When a completion repeats itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def find_loop(tokens: Sequence[int] | np.ndarray, *, window: int, start: int = 0) -> int | None:
    """The first length n > `start` at which the last `window` of `tokens[:n]` are a loop; None if there is none.

    They are a loop if, for a period p of at most half the window, each of them but the first p equals the token p
    places before it: a phrase of p tokens that occurs `window / p` times, the last time perhaps in part.
    """
    first = max(window, start + 1)
    if len(tokens) < first:
        return None
    recent = np.asarray(tokens[first - window :])
    ends = []
    for p in range(1, window // 2 + 1):
        equal = recent[p:] == recent[:-p]
        total = np.concatenate(([0], equal.cumsum()))
        span = window - p  # so many comparisons lie inside a window
        holds = np.flatnonzero(total[span:] - total[: len(total) - span] == span)
        if len(holds):
            ends.append(int(holds[0]))
    return first + min(ends) if ends else None
