"""The numbers of a stage's steps so far, and the few figures that rules make of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WINDOW = 5  # steps that a figure is taken over: a single step is too noisy
MOST_STEPS = 1000  # that are compared with; older ones are forgotten, so a checkpoint stays small
CERTAIN = 4.0  # standard errors. The best of many windows is lucky by about two; two more leave chance out


@dataclass(frozen=True, slots=True)
class Validation:
    """One evaluation on the validation tasks."""

    step: int
    accuracy: float
    tasks: int


@dataclass(frozen=True, slots=True)
class Trend:
    """A number over the windows of a stage: now, lowest and highest, with the indices of these windows."""

    now: float
    low: float
    low_at: int
    high: float
    high_at: int


@dataclass(frozen=True, slots=True)
class ShareTrend(Trend):
    """A share over the windows of a stage, each with the count that it is a share of."""

    count: float
    low_count: float

    @property
    def rise(self) -> float:
        """How far it is above its lowest; 0 where that may be chance."""
        return self.now - self.low if certainly_more(self.now, self.count, self.low, self.low_count) else 0.0


@dataclass(slots=True)
class History:
    """One row of numbers a step, oldest first. A number that a step does not have is missing in its row."""

    steps: list[int] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    checks: list[Validation] = field(default_factory=list)
    right: list[float] = field(default_factory=lambda: [0.0, 0.0])  # count and reward of all correct rollouts
    first_wrong: list[float] = field(default_factory=lambda: [0.0, 0.0])  # of the wrong ones of the first window

    def append(self, step: int, row: dict[str, float]) -> None:
        """Add the numbers of a step."""
        _add(self.right, row, "right")
        if len(self.steps) < WINDOW:
            _add(self.first_wrong, row, "wrong")
        self.steps.append(step)
        self.rows.append(row)
        del self.steps[:-MOST_STEPS], self.rows[:-MOST_STEPS]

    def half_reward(self) -> float | None:
        """The reward above which a rollout counts as rewarded: most of the way from wrong ones to correct ones.

        None until both have been seen, and where correct rollouts earn no more than wrong ones.
        """
        (right, right_reward), (wrong, wrong_reward) = self.right, self.first_wrong
        if not right or not wrong:
            return None
        low, high = wrong_reward / wrong, right_reward / right
        return low + 0.6 * (high - low) if high - low > 1e-6 else None

    def newest(self, name: str) -> float:
        """The number of the newest step; NaN where it has none."""
        return self.rows[-1].get(name, math.nan)

    def now(self, name: str) -> float:
        """The mean over the steps of the newest window that have the number; NaN before the first whole window."""
        found = [row[name] for row in self.rows[-WINDOW:] if name in row]
        return float(np.mean(found)) if found and len(self.rows) >= WINDOW else math.nan

    def total(self, name: str) -> float:
        """The sum over the newest window, where steps without the number count 0."""
        return math.fsum(row.get(name, 0.0) for row in self.rows[-WINDOW:])

    def gain(self, name: str) -> float:
        """How far a count has grown over the newest window; 0 where it began at 0 again, as after a resume."""
        before = self.rows[max(0, len(self.rows) - WINDOW - 1)].get(name, 0.0)
        return max(0.0, self.rows[-1].get(name, 0.0) - before)

    def mean_at(self, name: str, at: int) -> float:
        """The mean of the window with an index; NaN where a step of it lacks the number."""
        found = [row.get(name, math.nan) for row in self.rows[at : at + WINDOW]]
        return float(np.mean(found)) if len(found) == WINDOW else math.nan

    def trend(self, name: str) -> Trend | None:
        """The mean over each window; None where the newest window is not whole."""
        means = self._windows(name).mean(-1)
        if not len(means) or math.isnan(means[-1]):
            return None
        low, high = int(np.nanargmin(means)), int(np.nanargmax(means))
        return Trend(float(means[-1]), float(means[low]), low, float(means[high]), high)

    def share(self, part: str, whole: str) -> ShareTrend | None:
        """The sum of `part` over the sum of `whole` in each window; None where the newest window has none."""
        parts, wholes = np.nansum(self._windows(part), -1), np.nansum(self._windows(whole), -1)
        if not len(wholes) or not wholes[-1]:
            return None
        shares = np.where(wholes > 0, parts / np.maximum(wholes, 1e-9), np.nan)
        low, high = int(np.nanargmin(shares)), int(np.nanargmax(shares))
        now, lowest, highest = (float(shares[at]) for at in (-1, low, high))
        return ShareTrend(now, lowest, low, highest, high, count=float(wholes[-1]), low_count=float(wholes[low]))

    def _windows(self, name: str) -> np.ndarray:
        """`[windows, WINDOW]`, every run of `WINDOW` values; NaN where a step lacks the number."""
        values = np.array([row.get(name, math.nan) for row in self.rows], dtype=np.float64)
        if len(values) < WINDOW:
            return np.zeros((0, WINDOW))
        return np.lib.stride_tricks.sliding_window_view(values, WINDOW)

    def state(self) -> dict[str, Any]:
        """For the checkpoint: lists of plain numbers."""
        return {
            "steps": list(self.steps),
            "rows": [dict(row) for row in self.rows],
            "checks": [[c.step, c.accuracy, c.tasks] for c in self.checks],
            "right": list(self.right),
            "first_wrong": list(self.first_wrong),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> History:
        """The history that `state` was made of."""
        return cls(**{**state, "checks": [Validation(*check) for check in state["checks"]]})


def certainly_more(share: float, count: float, other: float, other_count: float) -> bool:
    """Whether `share` of `count` is above `other` of `other_count` by more than `CERTAIN` standard errors."""
    return share - other > CERTAIN * standard_error(share, count, other, other_count)


def standard_error(share: float, count: float, other: float, other_count: float) -> float:
    """Of the difference of two shares, with one more success and failure each: not 0 for shares of 0 and 1."""
    variance = 0.0
    for value, n in ((share, count), (other, other_count)):
        smoothed = (value * n + 1) / (n + 2)
        variance += smoothed * (1 - smoothed) / (n + 2)
    return math.sqrt(variance)


def _add(sums: list[float], row: Mapping[str, float], name: str) -> None:
    sums[0] += row.get(name, 0.0)
    sums[1] += row.get(f"{name}_reward", 0.0)
