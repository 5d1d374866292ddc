"""Policy losses as pure functions of log-probabilities; to minimise. Denominators come in as arguments.

Shapes: N response tokens, B sequences of a micro-batch. A loss is the micro-batch's share of the step's loss: the
shares of all micro-batches add up to the same number however the step is cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """What every policy loss reads."""

    logprobs: torch.Tensor  # [N], with gradient
    old_logprobs: torch.Tensor  # [N], of the policy that sampled
    advantages: torch.Tensor  # [B]
    sequence_ids: torch.Tensor  # [N] in [0, B)
    lengths: torch.Tensor  # [B] response tokens
    step_sequences: int  # sequences in the whole optimizer step


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """A loss and the sums that metrics divide by their own counts."""

    loss: torch.Tensor  # scalar
    sums: dict[str, float]


def grpo_loss(x: LossInputs, *, clip_low: float, clip_high: float) -> LossOutput:
    """GRPO (DeepSeekMath eq. 3) without its KL term: mean over sequences of the mean over tokens of

    `-min(rho A, clip(rho, 1 - clip_low, 1 + clip_high) A)`, `rho = pi_theta / pi_old`.
    """
    ratio = (x.logprobs - x.old_logprobs).exp()
    advantages = x.advantages[x.sequence_ids]
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    surrogate = torch.minimum(ratio * advantages, clipped * advantages)
    weights = 1.0 / (x.lengths[x.sequence_ids] * x.step_sequences)
    was_clipped = (ratio * advantages > clipped * advantages).float()
    return LossOutput(loss=-(weights * surrogate).sum(), sums={"clipped_tokens": float(was_clipped.sum())})


def kimi_k15_loss(x: LossInputs, *, tau: float) -> LossOutput:
    """Kimi k1.5 online mirror descent (§2.3.2): mean over sequences of `(A_j - tau d_j)^2 / (2 tau)`,

    `d_j = sum_t (log pi_theta - log pi_ref)` over the whole sequence, `A_j = r_j - mean(r)`. Its gradient is the
    negative of eq. 3, `A_j grad log pi - (tau / 2) grad d_j^2`. The reference is the policy that sampled, which is
    the iteration's start. The paper has no length normalisation, no clipping and no division by a deviation.
    """
    log_ratio = x.logprobs.new_zeros(len(x.lengths)).index_add(0, x.sequence_ids, x.logprobs - x.old_logprobs)
    per_sequence = (x.advantages - tau * log_ratio).square() / (2 * tau)
    # The constant A^2 / (2 tau) has no gradient; without it the printed loss is 0 at the iteration's start.
    per_sequence = per_sequence - x.advantages.square() / (2 * tau)
    penalty = (tau / 2) * log_ratio.detach().square().sum()
    return LossOutput(loss=per_sequence.sum() / x.step_sequences, sums={"squared_log_ratio": float(penalty)})
