"""Losses whose ratio is of single tokens: PPO's clip and what was made of it. Numbers to minimise."""

from __future__ import annotations

import torch

from configs.algorithms import Normalization
from rl.algorithms.loss_inputs import LossInputs, LossOutput, token_weights


def clip_ratio(ratio: torch.Tensor, *, low: float | None, high: float) -> torch.Tensor:
    """`clip(ratio, 1 - low, 1 + high)`; no bound below where `low` is None."""
    return ratio.clamp(None if low is None else 1 - low, 1 + high)


def _clipped(x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization) -> LossOutput:
    """`-min(rho_t A_t, clip(rho_t) A_t)` over the tokens, `rho_t = pi_theta / pi_old`: PPO eq. 7."""
    ratio = (x.logprobs - x.old_logprobs).exp()
    advantages = x.advantage_of_tokens
    clipped = clip_ratio(ratio, low=clip_low, high=clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    if x.token_correction is not None:
        surrogate = surrogate * x.token_correction
    was_clipped = (ratio * advantages > clipped * advantages).float().sum() / x.step_tokens
    loss = -(token_weights(x, normalization) * surrogate).sum()
    return LossOutput(loss=loss, metrics={"clip_fraction": was_clipped})


def grpo_loss(
    x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization = "sequence"
) -> LossOutput:
    """GRPO (DeepSeekMath §4.1.1, eq. 3) without its KL term: mean over answers of the mean over tokens of

    `-min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)`, `A` the reward standardised within the group.
    """
    return _clipped(x, clip_low=clip_low, clip_high=clip_high, normalization=normalization)


def dr_grpo_loss(
    x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization = "fixed"
) -> LossOutput:
    """Dr.GRPO (2503.20783 §3.2): GRPO's clip, summed over tokens and divided by a constant, the limit of an answer.

    `A = r - mean(r)`. Without the two divisions of GRPO, neither the length nor the difficulty of a question biases
    the gradient.
    """
    return _clipped(x, clip_low=clip_low, clip_high=clip_high, normalization=normalization)


def dapo_loss(
    x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization = "token"
) -> LossOutput:
    """DAPO (2503.14476 §3, eq. 8): GRPO's clip, wider above (§3.1), as a mean over all tokens of the step (§3.3)."""
    return _clipped(x, clip_low=clip_low, clip_high=clip_high, normalization=normalization)


def reinforce_pp_loss(
    x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization = "token"
) -> LossOutput:
    """REINFORCE++ (2501.03262 §3): PPO's clip without a critic, `A` standardised over the whole step.

    `A_t` is the reward less the KL penalties from token t on; see `rl.algorithms.advantages`.
    """
    return _clipped(x, clip_low=clip_low, clip_high=clip_high, normalization=normalization)


def ppo_loss(
    x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization = "token"
) -> LossOutput:
    """PPO (1707.06347 §3, eq. 7): the clipped surrogate with generalised advantages of single tokens."""
    return _clipped(x, clip_low=clip_low, clip_high=clip_high, normalization=normalization)


def cispo_loss(
    x: LossInputs, *, clip_low: float | None, clip_high: float, normalization: Normalization = "token"
) -> LossOutput:
    """CISPO (MiniMax-M1, 2506.13585 §3.1, eq. 4): REINFORCE whose importance weights are clipped, not its gradient.

    `-sg(clip(rho_t, 1 - clip_low, 1 + clip_high)) A_t log pi_theta`: every token keeps a gradient.
    """
    ratio = (x.logprobs - x.old_logprobs).exp().detach()
    weight = clip_ratio(ratio, low=clip_low, high=clip_high)
    surrogate = weight * x.advantage_of_tokens * x.logprobs
    if x.token_correction is not None:
        surrogate = surrogate * x.token_correction
    was_clipped = (weight != ratio).float().sum() / x.step_tokens
    loss = -(token_weights(x, normalization) * surrogate).sum()
    return LossOutput(loss=loss, metrics={"clip_fraction": was_clipped})
