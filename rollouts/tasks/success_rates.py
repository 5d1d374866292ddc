"""Success rates of tasks: what the samplers steer by, kept in the checkpoint, shown at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

FRESH = 0.5  # weight of a group's own rate beside what was known before: the policy changes
MOST = 200_000  # tasks remembered; those that were seen longest ago go first


class SuccessRates:
    """For each task with a scored group, the share of correct answers: a mean in which a later group weighs more."""

    def __init__(self) -> None:
        self._rates: dict[str, tuple[float, int]] = {}  # task id -> (rate, groups seen); last seen stands last

    def __len__(self) -> int:
        return len(self._rates)

    def observe(self, task_id: str, correct: Iterable[bool]) -> None:
        """Take in one group's verdicts; a group without any says nothing."""
        values = list(correct)
        if not values:
            return
        own = sum(values) / len(values)
        known = self._rates.pop(task_id, None)
        rate, seen = (own, 1) if known is None else ((1 - FRESH) * known[0] + FRESH * own, known[1] + 1)
        self._rates[task_id] = (rate, seen)
        if len(self._rates) > MOST:
            del self._rates[next(iter(self._rates))]

    def rate(self, task_id: str) -> float | None:
        """The success rate s_i, None for a task without a scored group."""
        known = self._rates.get(task_id)
        return None if known is None else known[0]

    def metrics(self) -> dict[str, float]:
        """Counts over all tasks that are remembered; see docs/metrics.md."""
        rates = [rate for rate, _ in self._rates.values()]
        if not rates:
            return {}
        return {
            "task_sampler/tasks_seen": float(len(rates)),
            "task_sampler/success": sum(rates) / len(rates),
            "task_sampler/unsolved_share": sum(rate == 0 for rate in rates) / len(rates),
            "task_sampler/solved_share": sum(rate == 1 for rate in rates) / len(rates),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs."""
        return {"rates": dict(self._rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self._rates = {task: (float(rate), int(seen)) for task, (rate, seen) in state["rates"].items()}

    def table(self) -> dict[str, dict[str, float]]:
        """Task id -> its rate and its number of scored groups, for a file; the hardest first."""
        ordered = sorted(self._rates.items(), key=lambda item: (item[1][0], -item[1][1], item[0]))
        return {task: {"success": round(rate, 4), "groups": seen} for task, (rate, seen) in ordered}
