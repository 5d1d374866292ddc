"""Statistics of an optimizer step, summed over its micro-batches and over the ranks that ran them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from rl.algorithms.loss_inputs import LossOutput
from rl.learner.router_replay import RouterStatistics
from rl.types import MicroBatch

_MAXIMA = ("logprob_gap_max",)  # every other statistic is a sum


class StepStatistics:
    """Sums over the micro-batches of one optimizer step; `metrics` turns them into means."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self.routers = RouterStatistics()

    def add(self, micro: MicroBatch, logprobs: torch.Tensor, entropy: torch.Tensor, output: LossOutput) -> None:
        """Add one micro-batch, `[N]` each. `approx_kl` is k3 (Schulman) of the sampling policy against this one."""
        gap = logprobs.cpu() - micro.columns.get("engine_logprobs", micro.old_logprobs)
        self.sums["loss"] += float(output.loss.detach())
        self.sums["entropy"] += float(entropy.sum())
        self.sums["approx_kl"] += float((gap.exp() - 1 - gap).sum())
        self.sums["logprob_gap_max"] = max(self.sums["logprob_gap_max"], float(gap.abs().max()))
        for name, value in output.metrics.items():
            self.sums[name] += float(value)

    def metrics(self, *, tokens: int) -> dict[str, float]:
        """Metrics by name; `tokens` are the trainable tokens of the whole step."""
        means = {name: self.sums[name] / tokens for name in ("entropy", "approx_kl")}
        return {**self.sums, **means, **self.routers.metrics()}

    @classmethod
    def total(cls, every: Sequence[StepStatistics]) -> StepStatistics:
        """The statistics of the step, from those of each process."""
        total = cls()
        for name in dict.fromkeys(name for own in every for name in own.sums):
            values = [own.sums[name] for own in every if name in own.sums]
            total.sums[name] = max(values) if name in _MAXIMA else sum(values)
        total.routers = RouterStatistics.total([own.routers for own in every])
        return total
