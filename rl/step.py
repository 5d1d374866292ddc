"""The loop of reinforcement learning, as the paper draws it (Kimi k1.5 figure 3a)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from configs.rl import RLConfig
from rl.distributed.learner_group import LearnerGroup
from rl.learner.learner import Learner
from rl.rollout_log import RolloutLog
from rl.samples import make_samples, sample_metrics
from rl.token_accounting import waste_metrics
from rl.weight_sync import WeightSync
from rollouts.sources.asynchronous import AsyncSource
from rollouts.sources.group_building import groups_with_signal, permute_rewards
from rollouts.sources.partial import oldest_trainable
from rollouts.sources.requests import request_seed
from rollouts.sources.sync import SyncSource
from rollouts.workers.pool import RolloutPool


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent in each named phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time the block under `name`."""
        began = time.perf_counter()
        yield
        self.seconds[f"seconds/{name}"] = self.seconds.get(f"seconds/{name}", 0.0) + time.perf_counter() - began


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """The parts that a step moves things between."""

    config: RLConfig
    gatherer: SyncSource | AsyncSource  # AsyncSource: the asynchronous run
    pool: RolloutPool
    learner: Learner | LearnerGroup
    log: RolloutLog
    sync: WeightSync
    seed: int

    def step(self, step: int) -> dict[str, float]:
        """Choose tasks, sample groups, score, compute advantages, record, update, publish. Returns the step's metrics.

        The tasks and every random draw depend on (seed, step, state) alone, so a resumed run repeats a step exactly.
        """
        config, watch = self.config, Stopwatch()
        with watch.phase("rollout"):
            gathered = self.gatherer.gather(step)
        groups = gathered.groups
        if config.shuffle_rewards:
            groups = permute_rewards(groups, seed=request_seed(self.seed + 1, step))
        with watch.phase("update"):
            trained_groups = groups_with_signal(groups, config)
            min_version = oldest_trainable(config.partial, self.learner.version)
            samples = make_samples(
                trained_groups, config, self.learner.model_outputs(trained_groups, min_version), min_version=min_version
            )
        with watch.phase("record"):
            self.log.write(step + 1, (*gathered.scored, *gathered.stale), groups, samples)
        with watch.phase("update"):
            metrics = gathered.metrics() | waste_metrics(gathered.scored, samples, gathered.dropped)
            metrics |= sample_metrics(samples) | self.learner.update(samples)
        with watch.phase("publish"):
            metrics |= self.sync.publish()
        metrics |= self.gatherer.sampler.metrics() | self.pool.metrics()
        return metrics | watch.seconds | {"version": float(self.learner.version)}


def run_steps(loop: Loop, *, start: int, after_step: Callable[[int, dict[str, float]], None]) -> None:
    """Run steps `start` to the end of the recipe; `after_step` records, evaluates and saves."""
    for step in range(start, loop.config.steps):
        after_step(step, loop.step(step))
