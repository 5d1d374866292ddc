"""The keys of `rl.loss.correction`: an engine that differs from the learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from configs.rules import CLOSED, check


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectionConfig:
    """Importance weights `pi_learner / pi_sampler` at the iteration's start, for engines that differ from the learner.

    `truncate` puts weights between `low` and `high`; `mask` sets those outside to 0.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CLOSED

    # a weight for each token, or the product over the completion; losses of whole sequences take `sequence`
    level: Literal["token", "sequence"] = "token"
    mode: Literal["truncate", "mask"] = "truncate"  # set weights outside the bounds to the bound, or to 0
    low: float = 0.0  # lower bound; 0 to 1
    high: float = 2.0  # upper bound; 1 or more

    def __post_init__(self) -> None:
        check(0 <= self.low <= 1, "low", self.low, "from 0 to 1, the weight where engine and learner agree")
        check(self.high >= 1, "high", self.high, "1 or more, the weight where engine and learner agree")
