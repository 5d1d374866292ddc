"""What a policy loss reads and returns, and the weights that make its shares add up.

Shapes: N response tokens, B sequences of a micro-batch. A loss is the micro-batch's share of the step's loss: the
shares of all micro-batches add up to the same number however the step is cut, since every denominator is the step's.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from configs.algorithms import Normalization


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """What the policy losses read. Columns that only some recipes need are None with the others."""

    logprobs: torch.Tensor  # [N], with gradient
    old_logprobs: torch.Tensor  # [N], of the policy at the iteration's start
    advantages: torch.Tensor  # [B]
    sequence_ids: torch.Tensor  # [N] in [0, B)
    lengths: torch.Tensor  # [B] response tokens
    step_sequences: int  # sequences in the whole optimizer step
    step_tokens: int  # response tokens in the whole optimizer step
    max_tokens: int  # the limit of a completion: the constant of `fixed`
    token_advantages: torch.Tensor | None = None  # [N], where they differ within a completion
    reference_logprobs: torch.Tensor | None = None  # [N]; None: the reference is the policy at the iteration's start
    sampler_logprobs: torch.Tensor | None = None  # [N], of the engine, for the mismatch correction
    token_correction: torch.Tensor | None = None  # [N], importance weights
    sequence_correction: torch.Tensor | None = None  # [B], importance weights of whole completions
    entropy: torch.Tensor | None = None  # [N], with gradient, for the bonus
    sft_mask: torch.Tensor | None = None  # [B] bool, completions that the supervised term trains on
    step_sft_tokens: int = 0  # their response tokens in the whole optimizer step

    @property
    def advantage_of_tokens(self) -> torch.Tensor:
        """Advantage of each token `[N]`."""
        return self.advantages[self.sequence_ids] if self.token_advantages is None else self.token_advantages

    @property
    def reference(self) -> torch.Tensor:
        """Log-probs of the reference policy `[N]`."""
        return self.old_logprobs if self.reference_logprobs is None else self.reference_logprobs


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """A loss, and metrics by name (docs/metrics.md); both are the micro-batch's shares of the step's numbers."""

    loss: torch.Tensor  # scalar
    metrics: dict[str, torch.Tensor] = field(default_factory=dict)  # scalars without gradient

    def __add__(self, other: LossOutput) -> LossOutput:
        """Both losses, and the metrics of both."""
        return LossOutput(loss=self.loss + other.loss, metrics={**self.metrics, **other.metrics})


def sum_per_sequence(x: LossInputs, values: torch.Tensor) -> torch.Tensor:
    """Sum over the tokens of each completion: `[N]` to `[B]`."""
    return values.new_zeros(len(x.lengths)).index_add(0, x.sequence_ids, values)


def token_weights(x: LossInputs, normalization: Normalization) -> torch.Tensor:
    """Weight of each token `[N]` in the step's loss.

    `sequence`: mean over completions of the mean over tokens. `token`: mean over all tokens of the step. `fixed`: mean
    over completions of the sum over tokens, divided by `max_tokens`. `sum`: mean over completions of the sum over
    tokens.
    """
    if normalization == "sequence":
        return 1.0 / (x.lengths[x.sequence_ids] * x.step_sequences)
    count = {"token": x.step_tokens, "fixed": x.step_sequences * x.max_tokens, "sum": x.step_sequences}[normalization]
    return torch.full_like(x.old_logprobs, 1.0 / count)
