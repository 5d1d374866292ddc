"""The kinds of stages that a recipe may list. A new kind is its file in `rl/stages`, its keys, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from configs.long2short import LongToShortConfig
from configs.long_context import LongContextConfig
from configs.rl import RLConfig
from configs.stage import StageConfig
from configs.supervised import PretrainConfig, SFTConfig
from configs.vit import ViTConfig


@dataclass(frozen=True, slots=True)
class StageKind:
    """A kind of stage: the keys that a recipe gives it, and the class that runs it."""

    config: type[StageConfig]
    runs: str  # `module:class`, a `rl.stages.stage.Stage`; imported when a run starts, as it brings in PyTorch


STAGE_KINDS: dict[str, StageKind] = {
    "vit": StageKind(ViTConfig, "rl.stages.vit_stage:ViTStage"),
    "pretrain": StageKind(PretrainConfig, "rl.stages.supervised_stage:SupervisedStage"),
    "long_context": StageKind(LongContextConfig, "rl.stages.long_context_stage:LongContextStage"),
    "sft": StageKind(SFTConfig, "rl.stages.supervised_stage:SupervisedStage"),
    "long2short": StageKind(LongToShortConfig, "rl.stages.long2short_stage:LongToShortStage"),
    "rl": StageKind(RLConfig, "rl.stages.rl_stage:RLStage"),
}


class ByKind:
    """Tells pydantic to validate a stage by the keys of its `kind`. It works without pydantic being imported here."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """A tagged union over the table. Called by pydantic."""
        make: Callable[[type], Any] = handler.generate_schema
        return {
            "type": "tagged-union",
            "discriminator": "kind",
            "choices": {name: make(kind.config) for name, kind in STAGE_KINDS.items()},
        }
