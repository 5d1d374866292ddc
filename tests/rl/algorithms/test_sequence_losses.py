"""GSPO and RLOO: numbers by hand, the papers' gradients by autograd, and an estimate that is right on average."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from loss_helpers import RESPONSES, REWARDS, Table, inputs, of_tables, token_loss

from rl.algorithms.advantages import centered, leave_one_out
from rl.algorithms.sequence_losses import gspo_loss, kimi_k15_loss, rloo_loss

ADVANTAGES = torch.tensor([0.4, -1.0, 2.0, -0.1], dtype=torch.float64)


def test_gspo_by_hand():
    """Log-ratios (0.4, 0) are s = e^0.2, clipped at 1.1; (-0.3) is s = e^-0.3 with A < 0, clipped at 0.8."""
    x = inputs([[0.4, 0.0], [-0.3]], [[0.0, 0.0], [0.0]], [2.0, -1.0])
    output = gspo_loss(x, clip_low=0.2, clip_high=0.1)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(-(1.1 * 2 - 0.8) / 2)
    assert x.logprobs.grad.tolist() == [0.0, 0.0, 0.0]
    assert output.metrics["clip_fraction"].item() == 1.0, "all three tokens"
    free = inputs([[0.4, 0.0], [-0.3]], [[0.0, 0.0], [0.0]], [2.0, -1.0])
    output = gspo_loss(free, clip_low=0.9, clip_high=0.9)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(-(2 * math.exp(0.2) - math.exp(-0.3)) / 2)
    assert free.logprobs.grad.tolist() == pytest.approx([-math.exp(0.2) / 2] * 2 + [math.exp(-0.3) / 2])


def test_gspo_gradient_is_the_papers():
    """Eq. 10: `(1/G) sum_i s_i A_i (1/|y_i|) sum_t grad log pi`, for answers inside the clip."""
    theta = Table(1)
    old = Table(2, near=theta)
    gspo_loss(of_tables(theta, old, ADVANTAGES), clip_low=0.9, clip_high=2.0).loss.backward()
    ascent = torch.zeros_like(theta.logits)
    for response, advantage in zip(RESPONSES, ADVANTAGES, strict=True):
        [score] = torch.autograd.grad(theta(response).mean(), theta.logits)
        ratio = (theta(response).sum() - old(response).sum()).div(len(response)).exp().detach()
        ascent += ratio * advantage * score / len(RESPONSES)
    assert torch.allclose(theta.logits.grad, -ascent, rtol=1e-12)


def test_gspo_tokens_of_an_answer_share_one_weight():
    x = inputs([[0.5, -0.5, 0.3]], [[0.0] * 3], [1.0])
    gspo_loss(x, clip_low=0.9, clip_high=0.9).loss.backward()
    assert len(set(x.logprobs.grad.tolist())) == 1


def test_rloo_by_hand():
    """Log-ratios add up over the answer: e^0.3 is inside a clip of 0.5, e^0.6 with A > 0 outside."""
    x = inputs([[0.1, 0.2], [0.6]], [[0.0, 0.0], [0.0]], [1.0, 2.0])
    output = rloo_loss(x, clip_low=0.5, clip_high=0.5)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(-(math.exp(0.3) + 1.5 * 2) / 2)
    assert x.logprobs.grad.tolist() == pytest.approx([-math.exp(0.3) / 2] * 2 + [0.0])
    assert output.metrics["clip_fraction"].item() == pytest.approx(1 / 3)


def test_rloo_gradient_on_policy_is_reinforce():
    """`(1/k) sum_j (r_j - mean of the others) grad log pi(y_j)`."""
    theta = Table(1)
    advantages = torch.from_numpy(leave_one_out(REWARDS.tolist()))
    rloo_loss(of_tables(theta, theta, advantages), clip_low=0.2, clip_high=0.2).loss.backward()
    ascent = torch.zeros_like(theta.logits)
    for j, response in enumerate(RESPONSES):
        others = (REWARDS.sum() - REWARDS[j]) / (len(RESPONSES) - 1)
        ascent += torch.autograd.grad(theta(response).sum(), theta.logits)[0] * (REWARDS[j] - others) / len(RESPONSES)
    assert torch.allclose(theta.logits.grad, -ascent, rtol=1e-12)


@pytest.mark.parametrize(
    ("loss", "baseline", "scale"),
    [
        (lambda x: rloo_loss(x, clip_low=0.2, clip_high=0.2), leave_one_out, 1.0),
        (lambda x: kimi_k15_loss(x, tau=0.3), centered, 0.5),  # (k - 1) / k: the mean holds the answer's own reward
        (lambda x: token_loss("dr_grpo", x, clip_low=0.2, clip_high=0.2), centered, 0.5 / 8),  # and 1 / limit
    ],
    ids=["rloo", "kimi_k15", "dr_grpo"],
)
def test_the_mean_gradient_over_groups_is_that_of_the_expected_reward(loss, baseline, scale):
    """Every pair of answers of two tokens, weighted by its probability, against grad E[r]: the estimate has no bias."""
    theta = Table(5)
    answers = [list(a) for a in itertools.product(range(5), repeat=2)]
    reward = {tuple(a): float((3 * a[0] + a[1]) % 4) for a in answers}
    probability = {tuple(a): theta(a).sum().exp() for a in answers}
    expected = sum(probability[a] * reward[a] for a in reward)
    [gradient] = torch.autograd.grad(expected, theta.logits)
    mean = torch.zeros_like(theta.logits)
    for pair in itertools.product(answers, repeat=2):
        new = torch.cat([theta(a) for a in pair])
        x = inputs([[0.0] * 2] * 2, [[0.0] * 2] * 2, baseline([reward[tuple(a)] for a in pair]).tolist())
        x = replace(x, logprobs=new, old_logprobs=new.detach())
        weight = math.prod(probability[tuple(a)].item() for a in pair)
        mean -= weight * torch.autograd.grad(loss(x).loss, theta.logits)[0]
    assert torch.allclose(mean, scale * gradient, rtol=1e-9, atol=1e-12)


def test_kimi_holds_to_another_reference():
    """With a reference of its own, d is the distance to that, not to the policy that sampled."""
    x = inputs([[0.2, 0.3]], [[0.0, 0.0]], [1.0], reference_logprobs=[[0.1, 0.0]])
    output = kimi_k15_loss(x, tau=0.5)
    assert output.loss.item() == pytest.approx(-0.4 + 0.25 * 0.16)
    assert output.metrics["squared_log_ratio"].item() == pytest.approx(0.25 * 0.16)
