"""Long-to-short stages: a model that thinks at length learns to answer with fewer tokens (k1.5 §2.4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from configs.rules import check as _check
from configs.supervised import SupervisedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LongToShortConfig(SupervisedConfig):
    """One of three methods of k1.5 §2.4. The fourth, RL under a length budget, is a stage of the kind `rl`."""

    kind: Literal["long2short"] = "long2short"
    # `average`: the mean of the weights of the entering model and of a shorter one, without training; `shortest`:
    # supervised training on the shortest correct of several samples; `dpo`: that one preferred to longer samples
    method: Literal["average", "shortest", "dpo"]
    # of `average`, the model to average with: the name of an earlier stage, or a model's folder
    short_model: str | None = None
    weight: float = 0.5  # of `average`: the share of the short model; greater than 0, below 1
    prompts: int = 1024  # of `shortest` and `dpo`: training questions that are sampled, at most
    samples: int = 8  # of `shortest` and `dpo`: samples of each question; 2 or more
    beta: float = 0.1  # of `dpo`: how strongly the policy is held to the entering model; greater than 0
    steps: int = 100  # optimizer steps of `shortest` and `dpo`

    def __post_init__(self) -> None:
        SupervisedConfig.__post_init__(self)
        averages = self.method == "average"
        _check(
            (self.short_model is not None) == averages,
            "short_model",
            self.short_model,
            "the name of an earlier stage or a model's folder with method `average`, left out with the others",
        )
        _check(0 < self.weight < 1, "weight", self.weight, "greater than 0 and below 1")
        _check(self.prompts > 0, "prompts", self.prompts, "1 or more")
        _check(self.samples > 1, "samples", self.samples, "2 or more: the shortest of several is kept")
        _check(self.beta > 0, "beta", self.beta, "greater than 0")
        _check(
            self.method != "dpo" or self.ranks.count == 1,
            "ranks.count",
            self.ranks.count,
            "1 with method `dpo`, which trains in one process",
        )
        _check(
            self.method != "dpo" or self.balance_coef == 0,
            "balance_coef",
            self.balance_coef,
            "0 with method `dpo`, whose loss has no such term",
        )
