"""One supervised stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from configs.optimizer import OptimizerConfig
from configs.rules import check as _check
from configs.stage import StageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTConfig(StageConfig):
    """One supervised stage (Kimi-VL §2.4): `thinking_share` of the examples carry a step-by-step solution."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset({"save_every"})

    kind: Literal["sft"] = "sft"
    steps: int  # optimizer steps
    batch_size: int = 32  # examples in a step
    micro_batches: int = 1  # forward passes in a step; more of them need less memory. A divisor of `batch_size`
    thinking_share: float = 0.0  # share of the examples that carry a step-by-step solution; 0 to 1
    save_every: int = 500  # steps between checkpoints
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)

    def __post_init__(self) -> None:
        StageConfig.__post_init__(self)  # `super()` does not work in a dataclass with slots
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
