"""The load of the experts, as a loss."""

from __future__ import annotations

import torch


def sequence_balance(
    scores: torch.Tensor, taken: torch.Tensor, segments: torch.Tensor, membership: torch.Tensor
) -> torch.Tensor:
    """`[B]`: sum over the experts of `f_i P_i` of each sequence (DeepSeek-V3 §2.1.2, eq. 17-20), 1 where all is even.

    `f_i` is the share of the sequence's routes that go to expert i, times E; `P_i` the mean of its normalised score.
    Scores `[P, E]`, routes `[P, k]`; a sequence is made of the segments of the row that `membership [B, S]` names, and
    `segments [P]` is each token's. Deviation: f counts the routes that were taken, in which the fixed bias has its say.
    """
    count, experts = len(membership.T), scores.shape[1]
    normalised = scores / scores.sum(-1, keepdim=True)
    routes = torch.zeros_like(scores).scatter_add_(1, taken, torch.ones_like(taken, dtype=scores.dtype))
    empty = scores.new_zeros(count, experts)
    membership = membership.to(scores.dtype)
    tokens = membership @ torch.bincount(segments, minlength=count).to(scores.dtype)
    chosen = membership @ empty.index_add(0, segments, routes) * experts / (taken.shape[1] * tokens[:, None])
    mean = membership @ empty.index_add(0, segments, normalised) / tokens[:, None]
    return (chosen * mean).sum(-1)
