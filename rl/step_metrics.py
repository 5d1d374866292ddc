"""The numbers of a step: seconds of each phase, and what its rollouts and samples were like."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from configs.rl import RLConfig
from rl.samples import sample_metrics
from rl.token_accounting import discarded_metrics
from rl.types import Sample
from rollouts.sources.group_building import group_metrics
from rollouts.sources.source import SourceReport
from rollouts.types import Group, ScoredRollout


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent in each named phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.perf_counter)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block under `name`."""
        began = time.perf_counter()
        yield
        self.seconds[f"seconds/{name}"] = self.seconds.get(f"seconds/{name}", 0.0) + time.perf_counter() - began

    def __getitem__(self, phase: str) -> float:
        """Seconds of a phase so far; 0 for one that did not begin."""
        return self.seconds.get(f"seconds/{phase}", 0.0)

    def metrics(self, now: float | None = None) -> dict[str, float]:
        """Seconds of the phases and of the step, and the shares in which driver and learner waited."""
        step = (time.perf_counter() if now is None else now) - self.began
        driver = max(0.0, step - self["generate"] - self["learner"] - self["publish"])
        idle = {"idle/driver": 1.0 - driver / step, "idle/learner": 1.0 - min(1.0, self["learner"] / step)}
        return {**self.seconds, "seconds/step": step, "seconds/driver": driver, **idle}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRollouts:
    """What a step generated: `scored` holds every rollout of each group, also those whose verifier failed."""

    groups: tuple[Group, ...]
    scored: tuple[tuple[ScoredRollout, ...], ...]
    report: SourceReport

    @property
    def skipped(self) -> Mapping[str, int]:
        """Tasks without rollouts by reason: they could not be rendered, or are in quarantine."""
        in_quarantine = sum(not rollouts for rollouts in self.scored)
        return {**self.report.skipped, **({"quarantine": in_quarantine} if in_quarantine else {})}


def step_metrics(rollouts: StepRollouts, samples: Sequence[Sample], config: RLConfig) -> dict[str, float]:
    """What a step generated and what it trains on; see docs/metrics.md."""
    return {
        **group_metrics(rollouts.groups, config),
        **{f"skipped/{reason}": float(count) for reason, count in rollouts.skipped.items()},
        **rollouts.report.metrics,
        **discarded_metrics(rollouts.scored, samples, rollouts.report.dropped_tokens),
        **sample_metrics(samples),
    }
