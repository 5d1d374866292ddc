"""Which model a run trains, and which of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyConfig:
    """Sizes of the tiny Kimi-VL that `model.path: tiny` makes on the spot."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    # width of the text model, a multiple of 32; the vision tower is half as wide
    hidden_size: int = 128
    num_hidden_layers: int = 3  # layers of the text model; the first is dense, the others have 8 experts each

    def __post_init__(self) -> None:
        wide = self.hidden_size > 0 and self.hidden_size % 32 == 0
        _check(wide, "hidden_size", self.hidden_size, "a multiple of 32: heads are 32 wide")
        _check(self.num_hidden_layers > 1, "num_hidden_layers", self.num_hidden_layers, "2 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Train small adapters instead of the weights (LoRA, arXiv:2106.09685): `W + (alpha / rank) B A`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    rank: int = 16  # rank of the adapters
    alpha: float = 32.0  # the adapters are scaled by `alpha / rank`
    # `attention` (MLA's projections), `mlp` (dense layers and shared experts), `experts` (the routed ones), `vision`;
    # never the router
    targets: tuple[Literal["attention", "mlp", "experts", "vision"], ...] = ("attention", "mlp")
    # type of the language model's frozen matrices, by bitsandbytes (`pip install 'thinkvl[qlora]'`): `nf4` is [QLoRA
    # in 4 bits](scaling.md#one-small-card), in one process; null: `model.dtype`
    quantization: Literal["nf4"] | None = None

    def __post_init__(self) -> None:
        _check(self.rank > 0, "rank", self.rank, "1 or more")
        _check(self.alpha > 0, "alpha", self.alpha, "greater than 0")
        _check(bool(self.targets), "targets", self.targets, "at least one of attention, mlp, experts, vision")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Where the weights come from (`tiny`, made on the spot; a folder; a hub name) and which of them are trained."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    path: str = "tiny"  # `tiny` makes a small Kimi-VL with random weights on the spot; else a folder or a hub name
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights that are trained
    lora: LoraConfig | None = None  # train LoRA adapters, in every stage; null trains the weights themselves
    # compute activations again in the backward pass: less memory, about a third more time
    gradient_checkpointing: bool = False
    # parts of parameter names that are not trained, such as `[vision_tower, mm_projector]`; supervised stages may have
    # a `freeze` of their own
    freeze: tuple[str, ...] = ()
    tiny: TinyConfig = field(default_factory=TinyConfig)

    @property
    def quantization(self) -> str | None:
        """The type of the frozen base under adapters, where it is not `dtype`."""
        return None if self.lora is None else self.lora.quantization

    def __post_init__(self) -> None:
        _check(bool(self.path), "path", self.path, "`tiny`, a folder, or a hub name")
        own = self.path == "tiny" or self.tiny == TinyConfig()
        _check(own, "path", self.path, "tiny where sizes are given under tiny; other weights have their own")
