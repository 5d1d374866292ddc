"""Losses with one importance ratio per completion. All are minimised."""

from __future__ import annotations

import torch

from rl.algorithms.clipped_losses import clip_ratio
from rl.algorithms.loss_inputs import LossInputs, LossOutput, sum_per_sequence


def kimi_k15_loss(x: LossInputs, *, tau: float) -> LossOutput:
    """Kimi k1.5 online mirror descent (2501.12599 §2.3.2): mean over completions of `(A_j - tau d_j)^2 / (2 tau)`.

    `d_j = sum_t (log pi_theta - log pi_ref)` over the whole completion, `A_j = r_j - mean(r)`. The gradient is the
    negative of eq. 3, `A_j grad log pi - (tau / 2) grad d_j^2`. The paper's reference is the iteration's start, which
    is the policy that sampled. There is no length normalisation, no clipping and no division by a deviation.
    """
    log_ratio = sum_per_sequence(x, x.logprobs - x.reference)
    per_sequence = (x.advantages - tau * log_ratio).square() / (2 * tau)
    # The constant A^2 / (2 tau) has no gradient; without it the printed loss is 0 at the iteration's start.
    per_sequence = per_sequence - x.advantages.square() / (2 * tau)
    if x.sequence_correction is not None:
        per_sequence = per_sequence * x.sequence_correction
    penalty = (tau / 2) * log_ratio.detach().square().sum() / x.step_sequences
    return LossOutput(loss=per_sequence.sum() / x.step_sequences, metrics={"squared_log_ratio": penalty})


def gspo_loss(x: LossInputs, *, clip_low: float | None, clip_high: float) -> LossOutput:
    """GSPO (2507.18071 §4.1, eq. 5-7): mean over completions of `-min(s A, clip(s, 1 - clip_low, 1 + clip_high) A)`.

    `s = (pi_theta(y) / pi_old(y))^(1 / |y|)`. All tokens of a completion share one weight and are clipped together.
    """
    log_ratio = sum_per_sequence(x, x.logprobs - x.old_logprobs) / x.lengths
    return _clipped_sequences(x, log_ratio.exp(), clip_low=clip_low, clip_high=clip_high)


def rloo_loss(x: LossInputs, *, clip_low: float | None, clip_high: float) -> LossOutput:
    """RLOO (2402.14740 §2.2-2.3): REINFORCE over whole completions, `A_j = r_j - mean of the others' rewards`.

    Written with the ratio `rho = pi_theta(y) / pi_old(y)`, whose gradient is `grad log pi(y)` on policy; after the
    first optimizer step of an iteration the ratio corrects for the policy's change, within PPO's clip.
    """
    log_ratio = sum_per_sequence(x, x.logprobs - x.old_logprobs)
    return _clipped_sequences(x, log_ratio.exp(), clip_low=clip_low, clip_high=clip_high)


def _clipped_sequences(x: LossInputs, ratio: torch.Tensor, *, clip_low: float | None, clip_high: float) -> LossOutput:
    """Mean over completions of `-min(ratio A, clip(ratio) A)`, ratio `[B]`."""
    clipped = clip_ratio(ratio, low=clip_low, high=clip_high)
    surrogate = torch.minimum(ratio * x.advantages, clipped * x.advantages)
    if x.sequence_correction is not None:
        surrogate = surrogate * x.sequence_correction
    was_clipped = ((ratio * x.advantages > clipped * x.advantages) * x.lengths).sum() / x.step_tokens
    return LossOutput(loss=-surrogate.sum() / x.step_sequences, metrics={"clip_fraction": was_clipped.detach()})
