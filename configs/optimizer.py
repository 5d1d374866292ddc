"""How a gradient becomes an update."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerConfig:
    """AdamW on everything, or Muon on the matrices and AdamW on the rest (Moonlight §2.2)."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    name: Literal["adamw", "muon"] = "adamw"  # AdamW on everything, or Muon on the matrices and AdamW on the rest
    learning_rate: float = 1e-6  # greater than 0
    # type of AdamW's moments, by torchao (`pip install 'thinkvl[lean]'`); null: the weights' type, and PyTorch's fused
    # AdamW. Not with `muon`
    state: Literal["float32", "bfloat16", "8bit"] | None = None
    weight_decay: float = 0.0  # decoupled; not of norms, biases and embeddings; 0 or more
    # AdamW's decay of the gradient's mean and of its square; each from 0, below 1
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_steps: int = 0  # optimizer steps in which the learning rate rises from 0
    schedule: Literal["constant", "linear", "cosine"] = "constant"  # of the learning rate after the warm-up
    final_fraction: float = 0.0  # of the learning rate, where linear and cosine end; 0 to 1
    grad_clip: float = 1.0  # largest norm of the gradient; greater than 0

    def __post_init__(self) -> None:
        _check(self.learning_rate > 0, "learning_rate", self.learning_rate, "greater than 0")
        _check(
            self.state is None or self.name == "adamw",
            "state",
            self.state,
            "left out with muon: it keeps one momentum, in the weights' type",
        )
        _check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        _check(0 <= self.final_fraction <= 1, "final_fraction", self.final_fraction, "between 0 and 1")
        _check(
            self.final_fraction == 0 or self.schedule != "constant",
            "final_fraction",
            self.final_fraction,
            "0 where schedule is constant",
        )
        _check(self.grad_clip > 0, "grad_clip", self.grad_clip, "greater than 0")
        _check(all(0 <= beta < 1 for beta in self.betas), "betas", self.betas, "two numbers in [0, 1)")
