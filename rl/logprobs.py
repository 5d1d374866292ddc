"""Log-probabilities of chosen tokens from hidden states, without ever holding all logits at once."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from rollouts.engines.sampling import policy_logprobs


def token_logprobs(
    hidden: torch.Tensor,
    lm_head: nn.Module,
    targets: torch.Tensor,
    *,
    temperature: float,
    barred: torch.Tensor,
    chunk: int = 2048,
    entropy_gradient: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob `[N]` of each target and the distribution's entropy `[N]` from hidden states `[N, H]`.

    The entropy is detached unless `entropy_gradient`.

    Temperature and the barred mask are applied exactly as the engine does. Chunks of `chunk` tokens are recomputed
    in the backward pass, so at most `chunk * V` logits exist at a time.
    """
    logprobs, entropies = [], []
    for h, t in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if len(hidden) > chunk and torch.is_grad_enabled():
            lp, ent = checkpoint(
                _chunk_logprobs, h, lm_head, t, temperature, barred, entropy_gradient, use_reentrant=False
            )
        else:
            lp, ent = _chunk_logprobs(h, lm_head, t, temperature, barred, entropy_gradient)
        logprobs.append(lp)
        entropies.append(ent)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk_logprobs(
    hidden: torch.Tensor,
    lm_head: nn.Module,
    targets: torch.Tensor,
    temperature: float,
    barred: torch.Tensor,
    entropy_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    table = policy_logprobs(lm_head(hidden), temperature, barred)
    with torch.set_grad_enabled(entropy_gradient and torch.is_grad_enabled()):
        entropy = -(table.exp() * table.masked_fill(barred, 0.0)).sum(-1)
    return table.gather(-1, targets[:, None]).squeeze(-1), entropy
