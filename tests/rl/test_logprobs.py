"""Log-probs in chunks equal log-probs at once, and both equal what torch says."""

import pytest
import torch
from torch import nn

from rl.logprobs import token_logprobs
from rollouts.engines.sampling import barred_token_mask


def setting(rng, count=37):
    head = nn.Linear(8, 50, bias=False).double()
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(rng.normal(size=(50, 8))))
    hidden = torch.from_numpy(rng.normal(size=(count, 8))).requires_grad_()
    return head, hidden, torch.from_numpy(rng.integers(0, 47, count)), barred_token_mask(50, [47, 48, 49])


@pytest.fixture
def _in_fp64(monkeypatch):
    """`policy_logprobs` rounds to fp32; here it must not, so that only the chunks can differ."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("_in_fp64")
@pytest.mark.parametrize("chunk", [1, 5, 36, 37])
def test_chunks_change_neither_values_nor_gradients(rng, chunk):
    head, hidden, targets, barred = setting(rng)
    weights = torch.from_numpy(rng.normal(size=37))
    results = []
    for size in (10_000, chunk):
        logprobs, entropy = token_logprobs(hidden, head, targets, temperature=0.7, barred=barred, chunk=size)
        assert logprobs.dtype == torch.float64
        gradients = torch.autograd.grad((logprobs * weights).sum(), [hidden, head.weight])
        results.append((logprobs.detach(), entropy, *gradients))
    for whole, cut in zip(*results, strict=True):
        assert (whole - cut).abs().max() < 1e-10


def test_values_are_those_of_a_categorical_distribution(rng):
    head, hidden, targets, barred = setting(rng)
    logprobs, entropy = token_logprobs(hidden, head, targets, temperature=0.7, barred=barred)
    expected = torch.distributions.Categorical(logits=(head(hidden) / 0.7)[:, :47])
    assert torch.allclose(logprobs.double(), expected.log_prob(targets), atol=1e-5)
    assert torch.allclose(entropy.double(), expected.entropy(), atol=1e-5)
    assert not entropy.requires_grad


def test_a_chunk_holds_no_more_logits_than_it_says(rng):
    head, hidden, targets, barred = setting(rng)
    rows = []
    head.register_forward_hook(lambda _, inputs, output: rows.append(len(output)))
    token_logprobs(hidden, head, targets, temperature=1.0, barred=barred, chunk=10)[0].sum().backward()
    assert max(rows) == 10
    assert sum(rows) == 2 * 37, "once forward, once again in the backward pass"


def test_no_token_gives_no_logprob(rng):
    head, hidden, targets, barred = setting(rng, count=1)
    logprobs, entropy = token_logprobs(hidden[:0], head, targets[:0], temperature=1.0, barred=barred)
    assert logprobs.shape == entropy.shape == (0,)
