"""Long-context stages: a model that was trained on short sequences learns to use longer ones (Kimi-VL §2.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.rules import check as _check
from configs.supervised import SupervisedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LongContextConfig(SupervisedConfig):
    """Supervised training after a change of the model: a larger RoPE base, and a longer longest sequence.

    The weights of the sources in `data.train` say how much of the data is long (a quarter in Kimi-VL §2.3) and how much
    is replayed from the stages before. Two such stages in the recipe are its two sub-stages.
    """

    kind: Literal["long_context"] = "long_context"
    rope_base: float  # base of the text model's rotary positions from this stage on; 800,000 in Kimi-VL
    context: int  # longest sequence from this stage on, in tokens; at least the entering model's

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        _check(self.rope_base > 1, "rope_base", self.rope_base, "greater than 1")
        _check(self.context > 0, "context", self.context, "1 or more")
        _check(self.max_tokens <= self.context, "max_tokens", self.max_tokens, f"at most context = {self.context}")
