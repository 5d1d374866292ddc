"""The mismatch between the engine that sampled and the learner: importance weights, truncated or masked."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch

from rl.algorithms.loss_inputs import LossInputs, sum_per_sequence


def correct_mismatch(
    x: LossInputs, *, level: Literal["token", "sequence"], mode: Literal["truncate", "mask"], low: float, high: float
) -> tuple[LossInputs, dict[str, torch.Tensor]]:
    """`x` with the weights `w = pi_old / pi_sampler`, both at the iteration's start, and their metrics.

    `pi_old` is the learner's own, `pi_sampler` what the engine drew from. `token`: a weight for each token;
    `sequence`: the product over the completion. `truncate`: `clip(w, low, high)` (truncated importance sampling,
    Ionides 2008); `mask`: 0 outside `[low, high]` (masked importance sampling). Masked tokens count in denominators.
    """
    if x.sampler_logprobs is None:
        raise ValueError("the mismatch correction needs the sampler's log-probs")
    log_weight = (x.old_logprobs - x.sampler_logprobs).detach()
    raw = log_weight.exp() if level == "token" else sum_per_sequence(x, log_weight).exp()
    inside = (raw >= low) & (raw <= high)
    weights = raw.clamp(low, high) if mode == "truncate" else torch.where(inside, raw, 0.0)
    of_tokens = weights if level == "token" else weights[x.sequence_ids]
    outside = (~inside).float() if level == "token" else (~inside)[x.sequence_ids].float()
    metrics = {
        "correction_mean": of_tokens.sum() / x.step_tokens,
        "correction_outside": outside.sum() / x.step_tokens,
    }
    of_sequences = weights if level == "sequence" else None
    return replace(x, token_correction=of_tokens, sequence_correction=of_sequences), metrics
