"""One supervised stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from configs.optimizer import OptimizerConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTConfig:
    """One supervised stage (Kimi-VL §2.4): `thinking_share` of the examples carry a step-by-step solution."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    steps: int  # optimizer steps
    batch_size: int = 32  # examples in a step
    micro_batches: int = 1  # forward passes in a step; more of them need less memory. A divisor of `batch_size`
    thinking_share: float = 0.0  # share of the examples that carry a step-by-step solution; 0 to 1
    save_every: int = 500  # steps between checkpoints
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        _check(self.steps > 0, "steps", self.steps, "1 or more")
        _check(self.batch_size > 0, "batch_size", self.batch_size, "1 or more")
        _check(self.save_every > 0, "save_every", self.save_every, "1 or more")
        _check(
            self.micro_batches > 0 and self.batch_size % self.micro_batches == 0,
            "micro_batches",
            self.micro_batches,
            f"a divisor of batch_size = {self.batch_size}",
        )
        _check(0 <= self.thinking_share <= 1, "thinking_share", self.thinking_share, "between 0 and 1")
