"""Which tasks a step draws: uniform, by difficulty, by success rate, or until enough groups have signal.

What a sampler draws depends on its seed, the step and its state alone; the state is part of the checkpoint.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from configs.task_sampler import TaskSamplerConfig
from configs.text import counted
from rewards.types import Task
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.success_rates import SuccessRates

ENDLESS_POOL = 1024  # tasks that stand for an endless source where tasks are to be seen again
START = 0.25  # share of the pool, the easiest, that a curriculum begins with
LEVELS = 8  # a curriculum by success opens the pool in so many parts
READY = 0.7  # success rate of the hardest open part at which the next one opens
PATIENCE = 3  # draws of a task without any verdict, after which it counts as solved
FLOOR = 0.02  # priority of a task that is always solved: it is drawn now and then


class TaskSampler(Protocol):
    """Chooses the tasks of each step. `success` is kept up to date by `observe`."""

    success: SuccessRates

    def begin_step(self, step: int) -> None:
        """Called once before the draws and refills of `step`."""
        ...

    def draw(self, step: int, n: int) -> list[Task]:
        """The `n` tasks that `step` begins with; in an asynchronous run, called before that step begins."""
        ...

    def refill(self, n: int) -> list[Task]:
        """`n` more tasks for the same step in place of groups without signal; none where groups are not refilled."""
        ...

    def observe(self, results: Sequence[tuple[Task, Sequence[bool]]]) -> None:
        """Take in which answers to each task were correct."""
        ...

    def metrics(self) -> dict[str, float]:
        """Numbers of the state; see docs/metrics.md."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        ...


class UniformSampler:
    """The mixture as it is: finite sources in epochs, endless ones without end."""

    def __init__(self, config: TaskSamplerConfig, mixture: TaskMixture, *, seed: int, steps: int) -> None:
        self.success = SuccessRates()
        self.config, self.mixture, self.seed, self.steps = config, mixture, seed, steps

    def begin_step(self, step: int) -> None:
        """Nothing to do where groups are not refilled."""

    def draw(self, step: int, n: int) -> list[Task]:
        """The tasks of `step`."""
        return self.mixture.draw(step, n)

    def refill(self, n: int) -> list[Task]:
        """None."""
        del n
        return []

    def observe(self, results: Sequence[tuple[Task, Sequence[bool]]]) -> None:
        """Keep the success rates."""
        for task, correct in results:
            self.success.observe(task.id, correct)

    def metrics(self) -> dict[str, float]:
        """Those of the success rates."""
        return self.success.metrics()

    def state_dict(self) -> dict[str, Any]:
        """The success rates."""
        return {"success": self.success.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.success.load_state_dict(state["success"])


class DynamicSampler(UniformSampler):
    """DAPO §3.2: groups without signal are refilled from the same walk, in at most `rounds` rounds a step."""

    def __init__(self, config: TaskSamplerConfig, mixture: TaskMixture, *, seed: int, steps: int) -> None:
        super().__init__(config, mixture, seed=seed, steps=steps)
        self.drawn = self.rounds = 0

    def begin_step(self, step: int) -> None:
        """Count the rounds of refilling from zero."""
        self.rounds = 0

    def draw(self, step: int, n: int) -> list[Task]:
        """The next `n` tasks of the walk."""
        del step
        return self._next(n)

    def refill(self, n: int) -> list[Task]:
        """The next `n` tasks of the walk; none once the step's rounds are used up."""
        if self.rounds >= self.config.rounds:
            return []
        self.rounds += 1
        return self._next(n)

    def _next(self, n: int) -> list[Task]:
        tasks = [self.mixture.draw(self.drawn + i, 1)[0] for i in range(n)]
        self.drawn += n
        return tasks

    def metrics(self) -> dict[str, float]:
        """The rounds of refilling that the last step needed, too."""
        return {**super().metrics(), "task_sampler/refill_rounds": float(self.rounds)}

    def state_dict(self) -> dict[str, Any]:
        """The place in the walk, too."""
        return {**super().state_dict(), "drawn": self.drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        super().load_state_dict(state)
        self.drawn = int(state["drawn"])


class PrioritizedSampler(UniformSampler):
    """k1.5 §2.3.4: tasks of a finite pool with a chance in proportion to 1 - s_i, no task twice in a step.

    A task that was never drawn has s_i = 0; one that is always solved keeps a small chance. So does one that was drawn
    three times and never had a verdict: its prompt is too long, its image broken, or its verifier fails.
    """

    def __init__(self, config: TaskSamplerConfig, mixture: TaskMixture, *, seed: int, steps: int) -> None:
        super().__init__(config, mixture, seed=seed, steps=steps)
        self.places = _pool(config, mixture)
        self.ids = [mixture.at(place).id for place in self.places]
        self._in_vain: Counter[str] = Counter()  # how often a task was drawn that never had a verdict

    def draw(self, step: int, n: int) -> list[Task]:
        """`n` different tasks."""
        _check_size(len(self.places), n)
        weights = np.maximum(1.0 - np.array([self._success_of(task_id) for task_id in self.ids]), FLOOR)
        chosen = _rng(self.seed, step).choice(len(weights), size=n, replace=False, p=weights / weights.sum())
        self._in_vain.update(self.ids[i] for i in chosen if self.success.rate(self.ids[i]) is None)
        return [self.mixture.at(self.places[i]) for i in chosen]

    def _success_of(self, task_id: str) -> float:
        known = self.success.rate(task_id)
        return float(self._in_vain[task_id] >= PATIENCE) if known is None else known

    def state_dict(self) -> dict[str, Any]:
        """The draws in vain, too."""
        return {**super().state_dict(), "in_vain": dict(self._in_vain)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        super().load_state_dict(state)
        self._in_vain = Counter(state["in_vain"])


class CurriculumSampler(UniformSampler):
    """k1.5 §2.3.4: the easiest quarter of a finite pool first; harder tasks open by schedule, evenly over steps.

    All is open after the share `until` of the steps. Tasks without a label count as of middle difficulty.
    """

    def __init__(self, config: TaskSamplerConfig, mixture: TaskMixture, *, seed: int, steps: int) -> None:
        super().__init__(config, mixture, seed=seed, steps=steps)
        places = _pool(config, mixture)
        labels = [mixture.at(place).difficulty for place in places]
        if all(label is None for label in labels):
            raise DataSetError(
                f"rl.task_sampler.name = {config.name}: none of the {counted(len(labels), 'task')} "
                f"has a difficulty; map a column "
                "to `difficulty` in data.train, or choose another sampler"
            )
        rank = [0.5 if label is None else label for label in labels]
        self.places = [places[i] for i in sorted(range(len(places)), key=lambda i: rank[i])]

    def draw(self, step: int, n: int) -> list[Task]:
        """`n` different tasks of the open part."""
        _check_size(len(self.places), n)
        count = max(n, math.ceil(self.open_share(step) * len(self.places)))
        return [self.mixture.at(self.places[i]) for i in self._choose(step, n, count)]

    def _choose(self, step: int, n: int, count: int) -> Sequence[int]:
        return _rng(self.seed, step).choice(count, size=n, replace=False).tolist()

    def open_share(self, step: int) -> float:
        """Share of the pool, easiest first, that `step` draws from."""
        return min(1.0, START + (1 - START) * step / max(1.0, self.config.until * self.steps))


class SuccessCurriculumSampler(CurriculumSampler):
    """The same, but the next eighth of the pool opens when the hardest open eighth is solved often enough."""

    def __init__(self, config: TaskSamplerConfig, mixture: TaskMixture, *, seed: int, steps: int) -> None:
        super().__init__(config, mixture, seed=seed, steps=steps)
        self.level = math.ceil(START * LEVELS)
        self._place_of = {mixture.at(place).id: i for i, place in enumerate(self.places)}

    def open_share(self, step: int) -> float:
        """Share of the pool that is open now."""
        del step
        return self.level / LEVELS

    def observe(self, results: Sequence[tuple[Task, Sequence[bool]]]) -> None:
        """Keep the success rates, and open the next part where the hardest open one is solved."""
        super().observe(results)
        border = (self.level - 1) / LEVELS * len(self.places)
        hardest = [answer for task, correct in results if self._place_of[task.id] >= border for answer in correct]
        if hardest and sum(hardest) / len(hardest) >= READY:
            self.level = min(LEVELS, self.level + 1)

    def metrics(self) -> dict[str, float]:
        """The open share, too."""
        return {**super().metrics(), "task_sampler/open_share": self.level / LEVELS}

    def state_dict(self) -> dict[str, Any]:
        """The level, too."""
        return {**super().state_dict(), "level": self.level}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        super().load_state_dict(state)
        self.level = int(state["level"])


TASK_SAMPLERS: Mapping[str, type[UniformSampler]] = {
    "uniform": UniformSampler,
    "dynamic": DynamicSampler,
    "prioritized": PrioritizedSampler,
    "curriculum": CurriculumSampler,
    "curriculum_by_success": SuccessCurriculumSampler,
}


def build_task_sampler(config: TaskSamplerConfig, mixture: TaskMixture, *, seed: int, steps: int) -> TaskSampler:
    """The sampler that `RLConfig.task_sampler` names. Raises DataSetError where the data cannot serve it."""
    return TASK_SAMPLERS[config.name or "uniform"](config, mixture, seed=seed, steps=steps)


def _pool(config: TaskSamplerConfig, mixture: TaskMixture) -> list[tuple[int, int]]:
    """The places of the tasks that are seen again and again."""
    endless = any(source.endless for source in mixture.sources)
    usual = ENDLESS_POOL if endless else sum(len(source) for source in mixture.sources)
    return mixture.places(usual if config.pool is None else config.pool)


def _check_size(size: int, n: int) -> None:
    if n > size:
        raise DataSetError(
            f"rl.prompts_per_step = {n}: more than the {counted(size, 'task')} that the sampler draws from; "
            "raise rl.task_sampler.pool, add data, or lower it"
        )


def _rng(seed: int, step: int) -> np.random.Generator:
    return np.random.default_rng([seed, step])
