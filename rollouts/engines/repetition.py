"""When an answer goes round in circles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def find_loop(tokens: Sequence[int] | np.ndarray, *, window: int, period: int, start: int = 0) -> int | None:
    """The first length n > `start` at which the last `window` of `tokens[:n]` repeat with a period of at most `period`.

    They repeat with period p if each of them but the first p equals the token p places before it: a block of p tokens
    written `window / p` times, whole or in part. None if there is no such n.
    """
    first = max(window, start + 1)
    if len(tokens) < first:
        return None
    recent = np.asarray(tokens[first - window :])
    ends = []
    for p in range(1, period + 1):
        equal = recent[p:] == recent[:-p]
        total = np.concatenate(([0], equal.cumsum()))
        span = window - p  # so many comparisons lie inside a window
        holds = np.flatnonzero(total[span:] - total[: len(total) - span] == span)
        if len(holds):
            ends.append(int(holds[0]))
    return first + min(ends) if ends else None
