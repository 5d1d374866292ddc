"""How long the steps that are left will take, as an interval that holds the truth in about nine of ten runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Chosen by hand after `python benchmarks/eta.py --fit` on simulated runs; other seeds than these measure the coverage.
_MEMORY = 0.25  # half-life of a step's weight in the mean, as a share of the steps so far
_BLOCKS = 8  # whose means show a trend
_DOUBT = 25.0  # a trend counts half if it is five times its standard error
_UNFORESEEN = 0.25  # standard deviations of the logarithm of what is left: of changes that no step has shown
_NOISE = 1.0  # of the noise of single steps, as a factor
_WANDER = 0.4  # of means of blocks around their trend, as a factor
_TREND = 0.3  # of a trend that ends or grows, as a share of it
_FEW = 1.2  # after a single step; falls with the square root of their number
_BELOW, _ABOVE = 1.0, 1.4  # how many standard deviations the interval reaches; steps get slower more often than faster


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """Seconds that are left: `middle` is the best guess, `low` to `high` the 90 % interval."""

    low: float
    middle: float
    high: float


def remaining(durations: Sequence[float], left: int) -> Remaining | None:
    """Seconds of `left` steps, given those of the steps so far; None before the second step.

    The first step is left out once there are four, since it also warms caches up. Recent steps weigh more. A trend of
    block means is carried on, by at most as many steps as it was seen for.
    """
    seen = np.asarray(durations[1:] if len(durations) >= 4 else durations, dtype=float)
    count = len(seen)
    if count < 2 or left < 1 or not seen.sum() > 0:
        return None
    age = np.arange(count)[::-1]
    weights = 0.5 ** (age / max(10.0, _MEMORY * count))
    weights /= weights.sum()
    slope, doubt, wander = _trend(seen)
    ahead = min(float(weights @ age) + left / 2, float(count))
    trend = float(np.clip(slope * ahead / (1 + _DOUBT * doubt), -1, 1))
    middle = float(weights @ seen) * left * np.exp(trend)
    far = left / (left + count)
    noise = (_NOISE * seen.std(ddof=1) / seen.mean()) ** 2 * (1 / left + float(weights @ weights))
    deviation = np.sqrt(
        noise + far * (_UNFORESEEN**2 + (_WANDER * wander) ** 2) + (_TREND * trend) ** 2 + _FEW**2 / count
    )
    return Remaining(
        low=float(middle * np.exp(-_BELOW * deviation)),
        middle=float(middle),
        high=float(middle * np.exp(_ABOVE * deviation)),
    )


def _trend(seen: np.ndarray) -> tuple[float, float, float]:
    """The slope a step of log-durations, its relative variance, and the spread of the blocks' means around it."""
    blocks = min(_BLOCKS, len(seen) // 2)
    if blocks < 3:
        return 0.0, 0.0, 0.3
    means = np.log([max(block.mean(), 1e-9) for block in np.array_split(seen, blocks)])
    places = np.arange(blocks) - (blocks - 1) / 2
    squares = float(places @ places)
    slope = float(places @ means) / squares
    variance = float(((means - means.mean() - slope * places) ** 2).sum()) / (blocks - 2)
    return slope * blocks / len(seen), variance / squares / max(slope**2, 1e-12), variance**0.5
