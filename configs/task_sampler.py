"""Which tasks a step of reinforcement learning draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSamplerConfig:
    """Which tasks a step draws (k1.5 §2.3.4, DAPO §3.2)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    # how tasks are chosen; null: `dynamic` with the algorithm `dapo` where `dynamic` is not refused, else `uniform`
    name: Literal["uniform", "curriculum", "curriculum_by_success", "prioritized", "dynamic"] | None = None
    # `prioritized` and curricula: tasks that are seen again and again; null: all, or 1,024 where a source is endless
    pool: int | None = None
    until: float = 0.5  # `curriculum`: share of the steps after which all tasks are open; above 0, up to 1
    # `dynamic`: how often groups whose completions are all right or all wrong are replaced in a step, at most.
    # It is refused where such groups are trained on: `ppo`, `reinforce_pp`, `group_global_std`, a KL in the reward
    rounds: int = 3

    def __post_init__(self) -> None:
        _check(self.pool is None or self.pool > 0, "pool", self.pool, "1 or more, or left out")
        _check(
            self.pool is None or self.name not in (None, "uniform", "dynamic"),
            "pool",
            self.pool,
            f"left out: {self.name or 'uniform'} walks through all tasks",
        )
        _check(0 < self.until <= 1, "until", self.until, "in (0, 1]")
        _check(self.until == 0.5 or self.name == "curriculum", "until", self.until, "left out: it is curriculum's")
        _check(self.rounds > 0, "rounds", self.rounds, "1 or more")
        _check(self.rounds == 3 or self.name in (None, "dynamic"), "rounds", self.rounds, "left out: it is dynamic's")
