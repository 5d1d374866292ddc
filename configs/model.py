"""Which model a run trains, and which of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyConfig:
    """Sizes of the tiny Kimi-VL that `model.path: tiny` makes on the spot."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    hidden_size: int = 128  # width of the text model
    num_hidden_layers: int = 3  # layers of the text model; the first is dense, the others have experts
    num_attention_heads: int = 4  # heads of the text model
    n_routed_experts: int = 8  # experts in each layer
    num_experts_per_tok: int = 2  # experts that each token uses; at most `n_routed_experts`
    moe_intermediate_size: int = 96  # inner width of an expert
    vision_hidden_size: int = 64  # width of the vision tower; a multiple of 16
    vision_num_hidden_layers: int = 2  # layers of the vision tower

    def __post_init__(self) -> None:
        for key in fields(self):
            _check(getattr(self, key.name) > 0, key.name, getattr(self, key.name), "1 or more")
        _check(
            self.num_experts_per_tok <= self.n_routed_experts,
            "num_experts_per_tok",
            self.num_experts_per_tok,
            f"at most n_routed_experts = {self.n_routed_experts}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Train small adapters instead of the weights (LoRA, arXiv:2106.09685): `W + (alpha / rank) B A`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    rank: int = 16  # rank of the adapters
    alpha: float = 32.0  # the adapters are scaled by `alpha / rank`
    # `attention` (MLA's projections), `mlp` (dense layers and shared experts), `experts` (the routed ones), `vision`;
    # never the router
    targets: tuple[Literal["attention", "mlp", "experts", "vision"], ...] = ("attention", "mlp")

    def __post_init__(self) -> None:
        _check(self.rank > 0, "rank", self.rank, "1 or more")
        _check(self.alpha > 0, "alpha", self.alpha, "greater than 0")
        _check(bool(self.targets), "targets", self.targets, "at least one of attention, mlp, experts, vision")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Where the weights come from (`tiny`, made on the spot; a folder; a hub name) and which of them are trained."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    path: str = "tiny"  # `tiny` makes a small Kimi-VL with random weights on the spot; else a folder or a hub name
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights, in the learner and the engines
    lora: LoraConfig | None = None  # train LoRA adapters, in every stage; null trains the weights themselves
    # compute activations again in the backward pass: less memory, about a third more time
    gradient_checkpointing: bool = False
    # parts of parameter names that are not trained, such as `[vision_tower, mm_projector]`
    freeze: tuple[str, ...] = ()
    tiny: TinyConfig = field(default_factory=TinyConfig)

    def __post_init__(self) -> None:
        _check(bool(self.path), "path", self.path, "`tiny`, a folder, or a hub name")
        own = self.path == "tiny" or self.tiny == TinyConfig()
        _check(own, "path", self.path, "tiny where sizes are given under tiny; other weights have their own")
