"""Experts of packed tokens: those that rollouts recorded, for replay, and statistics of what the routers did."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from configs.errors import UserError
from rl.algorithms.expert_balance import sequence_balance
from rl.algorithms.loss_inputs import LossOutput
from rl.types import PackedRow, PromptCompletion
from rollouts.model_family import ModelFamily, Routing
from rollouts.types import Completion


def recorded_experts(completion: Completion) -> np.ndarray:
    """`[T, M, k]`, the experts that the engine recorded. Raises UserError if it recorded none."""
    if completion.routed_experts is None:
        raise UserError(
            "rl.router_replay is true, but the engine recorded no experts with its completions: it cannot, or was "
            "started without recording. Set rl.router_replay=false, and rl.loss.correction where log-probs of engine "
            "and learner differ"
        )
    return completion.routed_experts


def place_experts(samples: Sequence[PromptCompletion], where: Sequence[np.ndarray], tokens: int) -> torch.Tensor | None:
    """The recorded experts of each packed token, `[P, M, k]` int64, or None if no sample has any.

    -1 stands where none were recorded. `where` are the packed positions `[T]` that predict the tokens of each sample.
    A sample records experts for those positions: the prompt's last token and its own tokens but the last. The prompt's
    last token is shared, and takes the record of the first sample that has one. The rest of the prompt is routed again.
    """
    kept = [s.experts for s in samples if s.experts is not None]
    if not kept:
        return None
    placed = np.full((tokens, *kept[0].shape[1:]), -1, dtype=np.int64)
    for sample, positions in zip(reversed(samples), reversed(where), strict=True):
        if sample.experts is not None:
            known = (sample.experts != np.iinfo(sample.experts.dtype).max).all(axis=(1, 2))
            placed[positions[known]] = sample.experts[known]
    return torch.from_numpy(placed)


def routing_of(family: ModelFamily, row: PackedRow, device: torch.device, *, keep_scores: bool = False) -> Routing:
    """The routing to pass to the policy for a packed row: the recorded experts, and room for what routers do."""
    replay = None if row.experts is None else row.experts.to(device)
    return family.new_routing(replay=replay, keep_scores=keep_scores)


def balance_term(routing: Routing, micro: PackedRow, *, coef: float, step_sequences: int) -> LossOutput:
    """`coef` times the sequence-wise balance loss, summed over the layers; the metric is its mean over them."""
    segments = torch.repeat_interleave(
        torch.arange(len(micro.segments)), torch.tensor([s.length for s in micro.segments])
    )
    membership = torch.zeros(len(micro.lengths), len(micro.segments))
    membership[micro.sequence_ids, segments[micro.predictors]] = 1
    at = {segment.start: index for index, segment in enumerate(micro.segments)}
    for index, segment in enumerate(micro.segments):
        if segment.prefix_length:  # a sequence includes its prompt, also where the first response token is masked
            membership[:, at[segment.prefix_start]] += membership[:, index]
    membership.clamp_(max=1)
    total = torch.zeros(())
    for routes in routing.seen.values():
        assert routes.scores is not None, "the routing does not keep scores"
        device = routes.scores.device
        losses = sequence_balance(routes.scores, routes.taken, segments.to(device), membership.to(device))
        total = total.to(device) + losses.sum() / step_sequences
    return LossOutput(loss=coef * total, metrics={"balance_loss": total.detach() / max(1, len(routing.seen))})


class RouterStatistics:
    """Counts over the micro-batches of a step: tokens of each expert, and replayed routes that the router would change.

    Only inputs that predict response tokens count, so the figures do not depend on how often a prompt is packed.
    """

    def __init__(self) -> None:
        self.load: dict[int, torch.Tensor] = {}  # layer -> [E] tokens
        self.replayed = self.flipped = 0

    def add(self, routing: Routing, predictors: torch.Tensor, experts: int) -> None:
        """Count one forward pass; `predictors` [N] are the packed positions, `experts` is E."""
        for layer, routes in routing.seen.items():
            counted = predictors.to(routes.taken.device)
            load = torch.bincount(routes.taken[counted].flatten(), minlength=experts).cpu()
            self.load[layer] = self.load[layer] + load if layer in self.load else load
            if routing.replay is not None:
                known = counted[routing.replay[counted, layer, 0] >= 0]
                own, taken = (x[known].sort(dim=-1).values for x in (routes.own, routes.taken))
                self.replayed += len(own)
                self.flipped += int((own != taken).any(-1).sum())

    @classmethod
    def total(cls, parts: Sequence[RouterStatistics]) -> RouterStatistics:
        """The sum of the counts of several processes."""
        whole = cls()
        for part in parts:
            whole.replayed, whole.flipped = whole.replayed + part.replayed, whole.flipped + part.flipped
            for layer, load in part.load.items():
                whole.load[layer] = whole.load[layer] + load if layer in whole.load else load
        return whole

    def metrics(self) -> dict[str, float]:
        """Metrics by name, see docs/metrics.md. Loads are relative to an even load."""
        if not self.load:
            return {}
        shares: Any = [load.double() / load.sum() for load in self.load.values()]
        experts = len(shares[0])
        entropies = [float(torch.special.entr(share).sum()) / math.log(experts) for share in shares]
        found = {
            "experts/load_max": experts * max(float(share.max()) for share in shares),
            "experts/load_min": experts * min(float(share.min()) for share in shares),
            "experts/load_entropy": sum(entropies) / len(entropies),
        }
        return found | ({"experts/flipped": self.flipped / self.replayed} if self.replayed else {})
