"""The loop of reinforcement learning, as the paper draws it (Kimi k1.5 figure 3a)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from configs.schema import RLConfig
from rewards.scorer import Scorer
from rl.collect import group_metrics, make_groups, make_samples, penalize_repeats, permute_rewards, shape_by_length
from rl.evaluate import Decode, request_seed, sample_and_score
from rl.learner import Learner
from rollouts.prompts import PromptRenderer
from rollouts.tasks.mixture import TaskMixture
from rollouts.workers import RolloutPool


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
    mixture: TaskMixture
    renderer: PromptRenderer
    pool: RolloutPool
    scorer: Scorer
    decode: Decode
    learner: Learner
    seed: int

    def step(self, step: int) -> dict[str, float]:
        """Choose tasks, sample groups, score, compute advantages, update, publish. Returns the step's metrics.

        The tasks and every random draw depend on (seed, step) alone, so a resumed run repeats a step exactly.
        """
        config, watch = self.config, Stopwatch()
        with watch.phase("tasks"):
            tasks = self.mixture.draw(step, config.prompts_per_step)
            prompts, skipped = self.renderer.render_all(tasks)
        with watch.phase("rollout"):
            scored = sample_and_score(
                self.pool.generate,
                self.decode,
                self.scorer,
                prompts,
                sampling=config.sampling,
                n=config.samples_per_prompt,
                seed=request_seed(self.seed, step),
            )
        groups = [shape_by_length(g, config.length_reward, step=step) for g in make_groups(prompts, scored)]
        groups = [penalize_repeats(g, config.repeat_penalty) for g in groups]
        metrics = group_metrics(groups) | {f"skipped/{reason}": float(n) for reason, n in skipped.items()}
        if config.shuffle_rewards:
            groups = permute_rewards(groups, seed=request_seed(self.seed + 1, step))
        with watch.phase("update"):
            metrics |= self.learner.update(make_samples(groups, config))
        with watch.phase("publish"):
            self.pool.publish(self.learner.weights(), version=self.learner.version)
        return metrics | watch.seconds | {"version": float(self.learner.version)}


def run_steps(loop: Loop, *, start: int, after_step: Callable[[int, dict[str, float]], None]) -> None:
    """Run steps `start` to the end of the recipe; `after_step` records, evaluates and saves."""
    for step in range(start, loop.config.steps):
        after_step(step, loop.step(step))
