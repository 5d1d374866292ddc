"""The vision tower's own stage: image-text pairs, before the tower is aligned to the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.rules import check as _check
from configs.supervised import SupervisedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ViTConfig(SupervisedConfig):
    """Image-text pairs train the tower with a contrastive loss and a caption loss (Kimi-VL §2.3.1)."""

    kind: Literal["vit"] = "vit"
    max_tokens: int = 64  # longest caption; longer ones are cut
    caption_coef: float = 2.0  # weight of the captions' cross-entropy beside the contrastive loss; 0 or more
    # layers of the text encoder, and of the caption decoder; both are as wide as the tower, and dropped at the end
    text_layers: int = 2

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        _check(self.batch_size > 1, "batch_size", self.batch_size, "2 or more: a pair is held against the others")
        _check(self.max_tokens > 1, "max_tokens", self.max_tokens, "2 or more: a caption and its end")
        _check(self.caption_coef >= 0, "caption_coef", self.caption_coef, "0 or more")
        _check(self.text_layers > 0, "text_layers", self.text_layers, "1 or more")
        one = "1: a vit stage trains in one process, since each pair is held against all others of its step"
        _check(self.ranks.count == 1, "ranks.count", self.ranks.count, one)
        own = "left out: a vit stage computes in model.dtype"
        _check(self.ranks.compute_dtype is None, "ranks.compute_dtype", self.ranks.compute_dtype, own)
        _check(self.balance_coef == 0, "balance_coef", self.balance_coef, "0: the tower has no routers")
