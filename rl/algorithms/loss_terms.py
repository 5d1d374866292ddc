"""Terms that stand beside a policy loss: KL, entropy, imitation of correct answers, and the critic's own loss."""

from __future__ import annotations

from typing import Literal

import torch

from configs.algorithms import Normalization
from rl.algorithms.loss_inputs import LossInputs, LossOutput, token_weights


def kl_estimate(log_ratio: torch.Tensor, estimator: Literal["k1", "k2", "k3"]) -> torch.Tensor:
    """Schulman's estimators of `KL(pi | ref)` a token, from `d = log pi - log ref` of tokens that `pi` drew:

    `k1 = d`, unbiased; `k2 = d^2 / 2`, biased, its gradient is that of KL; `k3 = exp(-d) - 1 + d`, unbiased, never
    negative (DeepSeekMath eq. 4).
    """
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return log_ratio.square() / 2
    return torch.expm1(-log_ratio) + log_ratio


def kl_term(
    x: LossInputs,
    *,
    coef: float,
    estimator: Literal["k1", "k2", "k3"],
    importance_weighted: bool,
    normalization: Normalization,
) -> LossOutput:
    """`coef` times the KL to the reference (DeepSeekMath eq. 3 and 4), normalised over tokens as the policy loss is.

    `importance_weighted` multiplies each token's estimate by `pi / pi_old`: its gradient is then, in expectation over
    the tokens that `pi_old` drew, that of KL itself (DeepSeek-V3.2, 2512.02556 §3.1).
    """
    estimate = kl_estimate(x.logprobs - x.reference, estimator)
    if importance_weighted:
        estimate = estimate * (x.logprobs - x.old_logprobs).exp()
    return LossOutput(loss=coef * (token_weights(x, normalization) * estimate).sum())


def entropy_term(x: LossInputs, *, coef: float) -> LossOutput:
    """`-coef` times the mean entropy over all tokens of the step (PPO §5, eq. 9)."""
    if x.entropy is None:
        raise ValueError("the entropy bonus needs the entropy of each token, with its gradient")
    return LossOutput(loss=-coef * x.entropy.sum() / x.step_tokens)


def sft_term(x: LossInputs, *, coef: float) -> LossOutput:
    """`coef` times the negative log-likelihood of the answers that the mask keeps, a mean over the step's such tokens.

    The mask keeps what the verifier called correct (VAPO, 2504.05118 §4.3: the positive example language model loss).
    """
    if x.sft_mask is None:
        raise ValueError("the supervised term needs the mask of the answers to copy")
    kept = x.sft_mask[x.sequence_ids].to(x.logprobs.dtype)
    nll = -(kept * x.logprobs).sum() / max(1, x.step_sft_tokens)
    return LossOutput(loss=coef * nll, metrics={"sft_nll": nll.detach()})


def value_loss(
    values: torch.Tensor, *, old_values: torch.Tensor, returns: torch.Tensor, clip: float, step_tokens: int
) -> LossOutput:
    """The critic's loss `[N]` tokens: mean over the step's tokens of `max((V - R)^2, (clip(V) - R)^2) / 2`.

    `clip(V)` keeps V within `clip` of what it was at the iteration's start: PPO's clip applied to the values
    (1506.02438 §5 limits the same move by a trust region).
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    error, clipped_error = (values - returns).square(), (clipped - returns).square()
    was_clipped = (clipped_error > error).float().sum() / step_tokens
    loss = torch.maximum(error, clipped_error).sum() / (2 * step_tokens)
    return LossOutput(loss=loss, metrics={"value_loss": loss.detach(), "value_clip_fraction": was_clipped})
