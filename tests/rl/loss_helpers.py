"""Made-up inputs of losses: lists of log-probs, and policies that are tables of logits."""

import torch

from configs.algorithms import ALGORITHMS
from rl.algorithms.policy_loss import TOKEN_LOSSES, LossInputs


def token_loss(name, x, *, normalization=None, **clip):
    """The loss of an algorithm with one ratio per token; `normalization` None is the algorithm's own."""
    return TOKEN_LOSSES[name](x, normalization=normalization or ALGORITHMS[name].normalizations[0], **clip)


def inputs(new, old, advantages, *, sequences=None, tokens=None, max_tokens=8, **more):
    """One list of log-probs for each sequence; `more` are columns of one list a sequence, or tensors."""
    lengths = torch.tensor([len(s) for s in new])
    flat = [flatten(side) for side in (new, old)]
    columns = {name: flatten(value) if isinstance(value, list) else value for name, value in more.items()}
    return LossInputs(
        logprobs=flat[0].requires_grad_(),
        old_logprobs=flat[1],
        advantages=torch.tensor(advantages, dtype=torch.float64),
        sequence_ids=torch.repeat_interleave(torch.arange(len(new)), lengths),
        lengths=lengths,
        step_sequences=sequences or len(new),
        step_tokens=tokens or int(lengths.sum()),
        max_tokens=max_tokens,
        **columns,
    )


def flatten(lists):
    return torch.as_tensor([x for s in lists for x in s], dtype=torch.float64)


class Table(torch.nn.Module):
    """A policy over 5 tokens whose logits at each of 6 positions are free: `pi(y) = prod_t p_t(y_t)`."""

    def __init__(self, seed, *, near=None, by=0.2):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(6, 5, generator=generator, dtype=torch.float64)
        self.logits = torch.nn.Parameter(logits if near is None else near.logits.detach() + by * logits)

    def forward(self, tokens):
        return self.logits[: len(tokens)].log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]


RESPONSES = [[0, 3, 1], [2], [4, 4, 0, 1, 2, 3], [1, 0]]
REWARDS = torch.tensor([1.0, 0.0, 0.25, 1.0], dtype=torch.float64)


def of_tables(theta, old, advantages, **more):
    with torch.no_grad():
        old_logprobs = torch.cat([old(r) for r in RESPONSES])
    lengths = torch.tensor([len(r) for r in RESPONSES])
    return LossInputs(
        logprobs=torch.cat([theta(r) for r in RESPONSES]),
        old_logprobs=old_logprobs,
        advantages=advantages,
        sequence_ids=torch.repeat_interleave(torch.arange(len(RESPONSES)), lengths),
        lengths=lengths,
        step_sequences=len(RESPONSES),
        step_tokens=int(lengths.sum()),
        max_tokens=8,
        **more,
    )
