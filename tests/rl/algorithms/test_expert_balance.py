"""The sequence-wise balance loss: hand-computed, by autograd, over packed prompts, and in the learner."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import build_model, make_learner, make_samples, new_id

from configs.algorithms import LossConfig
from rl.algorithms.expert_balance import sequence_balance


def test_by_hand():
    """One sequence of two tokens, three experts, one route each.

    Normalised scores (0.5, 0.25, 0.25) and (0.2, 0.6, 0.2): P = (0.35, 0.425, 0.225). Routes 0, 1: f = 3/2 (1, 1, 0).
    """
    scores = torch.tensor([[0.8, 0.4, 0.4], [0.3, 0.9, 0.3]])
    loss = sequence_balance(scores, torch.tensor([[0], [1]]), torch.zeros(2, dtype=torch.long), torch.ones(1, 1))
    assert loss.tolist() == pytest.approx([1.5 * (0.35 + 0.425)])


def test_an_even_load_is_one_and_a_collapsed_one_is_e_over_k():
    tokens, experts, top = 12, 6, 2
    even = torch.arange(tokens * top).reshape(tokens, top) % experts
    zeros, whole = torch.zeros(tokens, dtype=torch.long), torch.ones(1, 1)
    assert sequence_balance(torch.full((tokens, experts), 0.3), even, zeros, whole).tolist() == pytest.approx([1.0])
    collapsed = torch.full((tokens, experts), 1e-9)
    collapsed[:, :top] = 0.9
    routes = torch.tensor([[0, 1]] * tokens)
    assert sequence_balance(collapsed, routes, zeros, whole).tolist() == pytest.approx([experts / top])


def test_a_shared_prompt_belongs_to_each_of_its_answers():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(9, 4, generator=generator)
    routes = torch.stack([torch.randperm(4, generator=generator)[:2] for _ in range(9)])
    segments = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])  # prompt, two answers
    membership = torch.tensor([[1, 1, 0], [1, 0, 1], [1, 0, 0]])  # the third answer has one token, and no input
    packed = sequence_balance(scores, routes, segments, membership)
    for value, own in zip(packed, ([0, 1, 2, 3, 4], [0, 1, 2, 5, 6, 7, 8], [0, 1, 2]), strict=True):
        zeros = torch.zeros(len(own), dtype=torch.long)
        assert sequence_balance(scores[own], routes[own], zeros, torch.ones(1, 1)).item() == pytest.approx(value.item())


def test_the_gradient_is_that_of_the_formula():
    scores = torch.rand(5, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1)).add(0.1).requires_grad_()
    routes, zeros = torch.tensor([[0, 1], [0, 2], [3, 0], [1, 0], [2, 3]]), torch.zeros(5, dtype=torch.long)
    whole = torch.ones(1, 1)
    assert torch.autograd.gradcheck(lambda s: sequence_balance(s, routes, zeros, whole), (scores,))
    sequence_balance(scores, routes, zeros, whole).sum().backward()
    step = scores.detach() - 0.1 * scores.grad
    lower = sequence_balance(step, routes, zeros, whole)
    assert lower < sequence_balance(scores.detach(), routes, zeros, whole)
    assert scores.grad[:, 0].mean() > scores.grad[:, 3].mean(), "the busiest expert is pushed down most"


def gates(samples, coef, **options):
    model = build_model()
    learner = make_learner(model, loss=LossConfig(algorithm="grpo", balance_coef=coef), **options)
    grads = {}
    learner.optimizer.register_step_pre_hook(
        lambda *_: grads.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    )
    metrics = learner.update(samples)
    return grads["model.language_model.layers.1.mlp.gate.weight"], metrics


def test_the_learner_adds_it_whatever_the_micro_batches(rng, model):
    samples = make_samples(rng, model)
    without, metrics = gates(samples, 0.0)
    assert "balance_loss" not in metrics
    whole, metrics = gates(samples, 0.5)
    assert (whole - without).abs().max() > 1e-4
    for budget in (1, 40):
        cut, same = gates(samples, 0.5, micro_batch_tokens=budget)
        assert (cut - whole).norm() < 1e-5 * whole.norm()
        assert same["balance_loss"] == pytest.approx(metrics["balance_loss"], rel=1e-5)
    double, _ = gates(samples, 1.0)
    assert torch.allclose(double - without, 2 * (whole - without), atol=1e-6)


def test_the_term_is_a_mean_over_completions(rng, model):
    """Every completion twice: the loss and its gradient are those of every completion once."""
    samples = make_samples(rng, model)
    twice = [*samples, *(replace(s, id=new_id()) for s in samples)]
    plain, _ = gates(samples, 0.0)
    once, metrics = gates(samples, 0.5)
    double, same = gates(twice, 0.5)
    assert same["balance_loss"] == pytest.approx(metrics["balance_loss"], rel=1e-5)
    assert (double - once).norm() < 1e-3 * (once - plain).norm()


def test_a_masked_first_token_leaves_the_sequence_whole(rng, model):
    """A sequence is its prompt and its answer, also where a part of the answer is not trained on."""
    samples = [s for s in make_samples(rng, model) if len(s.token_ids) > 2]
    masked = [replace(s, mask=np.arange(len(s.token_ids)) > 0) for s in samples]
    assert gates(masked, 0.5)[1]["balance_loss"] == pytest.approx(gates(samples, 0.5)[1]["balance_loss"], rel=1e-5)
