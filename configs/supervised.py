"""Supervised stages: next-token prediction on documents and on the answers of tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from configs.optimizer import OptimizerConfig
from configs.ranks import RANKS_MAY_CHANGE, RanksConfig
from configs.rules import check as _check
from configs.stage import StageConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedConfig(StageConfig):
    """What every supervised stage has: the negative log-likelihood of its examples, packed into rows."""

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset({"save_every", "micro_batch_tokens", *RANKS_MAY_CHANGE})

    steps: int  # optimizer steps
    batch_size: int = 32  # examples in a step
    # longest example, prompt and images included; longer documents are cut into parts, longer answers are left out
    max_tokens: int = 8192
    micro_batch_tokens: int = 16_384  # packed tokens of one forward pass, and patches of one pass of the vision tower
    # weight of the routers' sequence-wise balance loss (DeepSeek-V3 §2.1.2); 0: the routers are left alone
    balance_coef: float = 0.0
    save_every: int = 500  # steps between checkpoints
    # parts of parameter names that this stage does not train; null: those of `model.freeze`
    freeze: tuple[str, ...] | None = None
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    ranks: RanksConfig = field(default_factory=RanksConfig)

    def __post_init__(self) -> None:
        StageConfig.__post_init__(self)  # `super()` does not work in a dataclass with slots
        for key in ("steps", "batch_size", "max_tokens", "micro_batch_tokens", "save_every"):
            _check(getattr(self, key) > 0, key, getattr(self, key), "1 or more")
        _check(self.balance_coef >= 0, "balance_coef", self.balance_coef, "0 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig(SupervisedConfig):
    """Joint pre-training (Kimi-VL §2.3): every token of documents, and the answers of tasks, with their solutions.

    A cooldown is such a stage with better data and a learning rate that falls to its floor.
    """

    kind: Literal["pretrain"] = "pretrain"


@dataclass(frozen=True, slots=True, kw_only=True)
class SFTConfig(SupervisedConfig):
    """Supervised fine-tuning (Kimi-VL §2.4): `thinking_share` of the answers carry a step-by-step solution."""

    kind: Literal["sft"] = "sft"
    thinking_share: float = 0.0  # share of the examples that carry a step-by-step solution; 0 to 1

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        _check(0 <= self.thinking_share <= 1, "thinking_share", self.thinking_share, "between 0 and 1")
