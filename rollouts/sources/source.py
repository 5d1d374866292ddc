"""The protocol between a step and where its groups come from; `window.py` implements it for every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rewards.types import Task
from rollouts.sources.pending import FinishedGroup
from rollouts.types import ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReport:
    """What happened in a step beside the groups that it got."""

    skipped: Mapping[str, int]  # tasks that could not be rendered, by reason
    dropped_tokens: Mapping[str, int] = field(default_factory=dict)  # sampled tokens that reached no step, by cause
    stale: tuple[tuple[ScoredRollout, ...], ...] = ()  # finished groups that were dropped as too old
    metrics: Mapping[str, float] = field(default_factory=dict)


class RolloutSource(Protocol):
    """Groups of scored rollouts for each step of a run, in this order: begin_step, submit, next_groups, report."""

    @property
    def unfinished(self) -> int:
        """Number of groups that ran out of budget in this step and continue in the next one."""
        ...

    def begin_step(self, step: int) -> range:
        """Continue what is unfinished. Returns the steps whose tasks must be chosen and submitted now."""
        ...

    def submit(self, tasks: Sequence[Task], *, step: int) -> list[int]:
        """Begin to generate a group for each task of `step`. Returns the groups' keys."""
        ...

    def next_groups(self, step: int) -> list[FinishedGroup]:
        """Wait for the groups that `step` trains on."""
        ...

    def wait_for(self, keys: Sequence[int]) -> list[FinishedGroup]:
        """Wait for these groups; those that run out of budget are left out."""
        ...

    def report(self, step: int) -> SourceReport:
        """What happened since the last report. Called once at the end of each step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to continue."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore `state_dict()`."""
        ...

    def close(self) -> None:
        """End what runs."""
        ...
