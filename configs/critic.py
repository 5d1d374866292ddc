"""`rl.loss.critic`: the keys of PPO's critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from configs.rules import CLOSED, check

_HIGHEST_VALUE_RATE = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticConfig:
    """PPO's critic: a value head on the policy's own backbone, or on a copy of the policy that is trained apart."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CLOSED

    # a value head on the policy's hidden states, or on those of a copy that is trained apart
    backbone: Literal["shared", "own"] = "own"
    # RL steps at the start in which only the critic is trained (VC-PPO); from 0, below `rl.steps`
    pretrain_steps: int = 0
    # of the copy, at its highest: ten updates of warm-up, then the optimizer's schedule; its head takes ten times as
    # much. null: five times the policy's, at most 3e-4; greater than 0, up to 0.01
    value_learning_rate: float | None = None
    value_coef: float = 0.5  # `shared`: weight of the value loss beside the policy's; greater than 0
    value_clip: float = 0.2  # how far a value may move in one step; greater than 0
    gamma: float = 1.0  # discount of later rewards; above 0, up to 1
    gae_lambda: float = 1.0  # 1 waits for the reward, less trusts the critic's values on the way; 0 to 1

    def __post_init__(self) -> None:
        rate = self.value_learning_rate
        check(self.pretrain_steps >= 0, "pretrain_steps", self.pretrain_steps, "0 or more")
        check(
            rate is None or 0 < rate <= _HIGHEST_VALUE_RATE,
            "value_learning_rate",
            rate,
            f"greater than 0 and at most {_HIGHEST_VALUE_RATE}: the head learns ten times as fast, and diverges above",
        )
        check(self.value_coef > 0, "value_coef", self.value_coef, "greater than 0")
        check(
            self.backbone == "shared" or self.value_coef == 0.5,
            "value_coef",
            self.value_coef,
            "left at 0.5: a critic of its own shares no gradient with the policy, value_learning_rate sets its pace",
        )
        check(self.value_clip > 0, "value_clip", self.value_clip, "greater than 0")
        check(0 < self.gamma <= 1, "gamma", self.gamma, "in (0, 1]")
        check(0 <= self.gae_lambda <= 1, "gae_lambda", self.gae_lambda, "between 0 and 1")
