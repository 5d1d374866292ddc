"""Losses with one importance ratio per token: PPO's clipped surrogate, and CISPO. All are minimised."""

from __future__ import annotations

import torch

from configs.algorithms import Normalization
from rl.algorithms.loss_inputs import LossInputs, LossOutput, token_weights


def clip_ratio(ratio: torch.Tensor, *, low: float | None, high: float) -> torch.Tensor:
    """`clip(ratio, 1 - low, 1 + high)`; without a lower bound if `low` is None."""
    return ratio.clamp(None if low is None else 1 - low, 1 + high)


def clipped_loss(
    x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization
) -> LossOutput:
    """Sum over tokens of `-w_t min(rho_t A_t, clip(rho_t, 1 - clip_low, 1 + clip_high) A_t)` (PPO, 1707.06347 eq. 7).

    `rho_t = pi_theta / pi_old` and `w_t` is the weight that `normalization` gives. `rl.algorithms.policy_loss` lists
    the algorithms that share this loss; they differ in their advantages, clip bounds and normalization.
    """
    ratio = (x.logprobs - x.old_logprobs).exp()
    advantages = x.advantage_of_tokens
    clipped = clip_ratio(ratio, low=clip_low, high=clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    was_clipped = ratio * advantages > clipped * advantages
    return _weighted(x, surrogate, was_clipped, normalization)


def cispo_loss(x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization) -> LossOutput:
    """CISPO (MiniMax-M1, 2506.13585 §3.1, eq. 4): REINFORCE with clipped importance weights.

    Sum over tokens of `-w_t sg(clip(rho_t, 1 - clip_low, 1 + clip_high)) A_t log pi_theta`. The gradient itself is not
    clipped, so every token keeps one.
    """
    ratio = (x.logprobs - x.old_logprobs).exp().detach()
    weight = clip_ratio(ratio, low=clip_low, high=clip_high)
    return _weighted(x, weight * x.advantage_of_tokens * x.logprobs, weight != ratio, normalization)


def _weighted(
    x: LossInputs, surrogate: torch.Tensor, was_clipped: torch.Tensor, normalization: Normalization
) -> LossOutput:
    """The loss from the objective `[N]` of each token, and the share of tokens that were clipped `[N]`."""
    if x.token_correction is not None:
        surrogate = surrogate * x.token_correction
    loss = -(token_weights(x, normalization) * surrogate).sum()
    return LossOutput(loss=loss, metrics={"clip_fraction": was_clipped.float().sum() / x.step_tokens})
