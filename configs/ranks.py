"""The processes of a learner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check

# Keys of stages that may have another value when a run resumes: they change no result.
RANKS_MAY_CHANGE = ("ranks.count", "ranks.replicas", "ranks.sequence", "ranks.restarts")


@dataclass(frozen=True, slots=True, kw_only=True)
class RanksConfig:
    """On how many processes the learner runs, and in which type; the number changes no result."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    # processes of the learner, each with a part of the weights and of the step; on GPUs each takes a whole one
    count: int = 1
    # copies of the sharded weights, such as one for each node; gradients are summed between them once a step, and
    # weights are gathered within a copy alone
    replicas: int = 1
    # ranks that share each packed row, for completions above 32k tokens; it divides the model's attention heads
    sequence: int = 1
    # of the forward and backward passes, over float32 weights; null: `model.dtype`
    compute_dtype: Literal["bfloat16"] | None = None
    # how often a command [goes back to the newest checkpoint](reliability.md#a-rank-of-the-learner) of a stage because
    # a rank died; 0: the run ends then
    restarts: int = 3

    def __post_init__(self) -> None:
        _check(self.count > 0, "count", self.count, "1 or more")
        _check(self.restarts >= 0, "restarts", self.restarts, "0 (end the run) or more")
        for name in ("replicas", "sequence"):
            value = getattr(self, name)
            fits = value > 0 and self.count % value == 0
            _check(fits, name, value, f"a whole number that divides count = {self.count}")
