"""Advantages: rewards of one group in, one number a response out. Pure functions, in the papers' symbols."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def centered(rewards: Sequence[float]) -> np.ndarray:
    """`A_j = r_j - mean(r)` (Kimi k1.5 §2.3.2, where the mean stands for tau log Z; Dr.GRPO eq. 2)."""
    r = np.asarray(rewards, dtype=np.float64)
    return r - r.mean()


def grpo(rewards: Sequence[float], *, epsilon: float = 1e-6) -> np.ndarray:
    """`A_j = (r_j - mean(r)) / (std(r) + epsilon)`, population std (DeepSeekMath §4.1.1); all 0 in a constant group."""
    a = centered(rewards)
    return a / (a.std() + epsilon)


def has_signal(rewards: Sequence[float]) -> bool:
    """False for a group whose rewards are all equal: it teaches nothing."""
    return len(rewards) > 1 and max(rewards) > min(rewards)
