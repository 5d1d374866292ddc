"""The load of the experts, as a loss."""

from __future__ import annotations

import torch


def sequence_balance(
    scores: torch.Tensor, taken: torch.Tensor, segments: torch.Tensor, members: torch.Tensor
) -> torch.Tensor:
    """`[B]`: sum over the experts of `f_i P_i` of each sequence (DeepSeek-V3 §2.1.2, eq. 17-20), 1 where all is even.

    `f_i` is the share of the sequence's routes that go to expert i, times E; `P_i` the mean of its normalised score.
    Scores `[P, E]`, routes `[P, k]`; a sequence is made of the segments of the row that `members [B, S]` names, and
    `segments [P]` is each token's. Deviation: f counts the routes that were taken, in which the fixed bias has its say.
    """
    count, experts = len(members.T), scores.shape[1]
    normalised = scores / scores.sum(-1, keepdim=True)
    routes = torch.zeros_like(scores).scatter_add_(1, taken, torch.ones_like(taken, dtype=scores.dtype))
    empty = scores.new_zeros(count, experts)
    members = members.to(scores.dtype)
    tokens = members @ torch.bincount(segments, minlength=count).to(scores.dtype)
    chosen = members @ empty.index_add(0, segments, routes) * experts / (taken.shape[1] * tokens[:, None])
    mean = members @ empty.index_add(0, segments, normalised) / tokens[:, None]
    return (chosen * mean).sum(-1)
