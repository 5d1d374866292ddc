"""GRPO and Kimi k1.5: numbers by hand, and gradients by autograd on a policy that is a table."""

import dataclasses
import math

import pytest
import torch
from loss_helpers import RESPONSES, REWARDS, Table, inputs, of_tables, token_loss

from configs.algorithms import LossConfig
from rl.algorithms.policy_loss import policy_loss
from rl.algorithms.sequence_losses import kimi_k15_loss

CLIP = {"clip_low": 0.2, "clip_high": 0.3}


def one_token(ratio, advantage, **clip):
    x = inputs([[math.log(ratio)]], [[0.0]], [advantage])
    output = token_loss("grpo", x, **(clip or CLIP))
    output.loss.backward()
    return output.loss.item(), x.logprobs.grad.item(), output.metrics["clip_fraction"].item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "clipped"),
    [
        (1.0, 2.0, -2.0, -2.0, 0),
        (1.5, 2.0, -2.6, 0.0, 1),  # good and already 1.3 times likelier: the clip ends its pull
        (0.5, 2.0, -1.0, -1.0, 0),  # good and less likely: the ratio counts in full
        (0.5, -2.0, 1.6, 0.0, 1),  # bad and already 0.8 times as likely
        (1.5, -2.0, 3.0, 3.0, 0),  # bad and likelier
        (1.29, 2.0, -2.58, -2.58, 0),
        (0.81, -2.0, 1.62, 1.62, 0),
    ],
)
def test_grpo_clips_by_hand(ratio, advantage, loss, gradient, clipped):
    assert one_token(ratio, advantage) == pytest.approx((loss, gradient, clipped))


def test_grpo_is_a_mean_over_sequences_of_means_over_tokens():
    """Two tokens at ratio 1 with A = 3, and four with A = -1: -(3 + (-1)) / 2, however long they are."""
    x = inputs([[0.0] * 2, [0.0] * 4], [[0.0] * 2, [0.0] * 4], [3.0, -1.0])
    output = token_loss("grpo", x, **CLIP)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(-1.0)
    assert x.logprobs.grad.tolist() == pytest.approx([-3 / 4] * 2 + [1 / 8] * 4)


@pytest.mark.parametrize("tau", [0.05, 0.3, 2.0])
def test_kimi_gradient_is_minus_equation_3(tau):
    """(1/k) sum_j [ grad log pi(y_j) (r_j - mean r) - (tau / 2) grad (log pi(y_j) / pi_i(y_j))^2 ], term by term."""
    theta, old = Table(1), Table(2)
    ascent = torch.zeros_like(theta.logits)
    for response, reward in zip(RESPONSES, REWARDS, strict=True):
        [score] = torch.autograd.grad(theta(response).sum(), theta.logits)
        [square] = torch.autograd.grad((theta(response).sum() - old(response).sum().detach()) ** 2, theta.logits)
        ascent += (score * (reward - REWARDS.mean()) - tau / 2 * square) / len(RESPONSES)
    kimi_k15_loss(of_tables(theta, old, REWARDS - REWARDS.mean()), tau=tau).loss.backward()
    assert torch.allclose(theta.logits.grad, -ascent, rtol=1e-12, atol=1e-14)


def test_kimi_at_the_start_of_an_iteration():
    """The loss is 0 and its gradient the plain policy gradient, whatever tau is."""
    theta = Table(1)
    advantages = REWARDS - REWARDS.mean()
    gradients = []
    for tau in (0.01, 1.0):
        theta.zero_grad()
        output = kimi_k15_loss(of_tables(theta, theta, advantages), tau=tau)
        output.loss.backward()
        assert output.loss.item() == pytest.approx(0, abs=1e-15)
        assert output.metrics["squared_log_ratio"] == 0
        gradients.append(theta.logits.grad.clone())
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-12)
    weighted = sum(a * theta(r).sum() for a, r in zip(advantages, RESPONSES, strict=True))
    [expected] = torch.autograd.grad(-weighted / len(RESPONSES), theta.logits)
    assert torch.allclose(gradients[0], expected, rtol=1e-12)


def test_kimi_by_hand():
    """d = (0.5, -0.2), A = (1, -1), tau = 0.5: A^2 leaves `-A d + tau d^2 / 2`, over two sequences."""
    output = kimi_k15_loss(inputs([[0.2, 0.3], [-0.2]], [[0.0, 0.0], [0.0]], [1.0, -1.0]), tau=0.5)
    assert output.loss.item() == pytest.approx((-0.5 + 0.25 * 0.25 - 0.2 + 0.25 * 0.04) / 2)
    assert output.metrics["squared_log_ratio"] == pytest.approx(0.25 * (0.25 + 0.04) / 2)


def test_kimi_penalises_the_whole_sequence():
    """Token ratios of (+a, -a) leave the sequence as likely as it was: no penalty, no pull back."""
    x = inputs([[0.7, -0.7]], [[0.0, 0.0]], [0.0])
    output = kimi_k15_loss(x, tau=1.0)
    output.loss.backward()
    assert output.loss.item() == 0
    assert output.metrics["squared_log_ratio"] == 0
    assert x.logprobs.grad.tolist() == [0.0, 0.0]


def test_kimi_has_its_minimum_where_tau_log_ratio_is_the_advantage():
    """The closed form `pi* = pi_i exp(r / tau) / Z`."""
    x = inputs([[0.8, 1.2]], [[0.0, 0.0]], [1.0])
    kimi_k15_loss(x, tau=0.5).loss.backward()
    assert x.logprobs.grad.tolist() == pytest.approx([0.0, 0.0], abs=1e-15)


def test_kimi_does_not_normalise_by_length():
    long = inputs([[0.0] * 9], [[0.0] * 9], [1.0])
    kimi_k15_loss(long, tau=0.1).loss.backward()
    assert long.logprobs.grad.tolist() == pytest.approx([-1.0] * 9)


def test_grpo_at_ratio_1_is_the_policy_gradient():
    theta = Table(3)
    advantages = torch.tensor([0.4, -1.0, 2.0, -0.1], dtype=torch.float64)
    token_loss("grpo", of_tables(theta, theta, advantages), **CLIP).loss.backward()
    weighted = sum(a * theta(r).mean() for a, r in zip(advantages, RESPONSES, strict=True)) / len(RESPONSES)
    [expected] = torch.autograd.grad(-weighted, theta.logits)
    assert torch.allclose(theta.logits.grad, expected, rtol=1e-12)


@pytest.mark.parametrize("loss", [lambda x: token_loss("grpo", x, **CLIP), lambda x: kimi_k15_loss(x, tau=0.2)])
def test_shares_of_a_cut_step_add_up(loss):
    new = [[0.1, -0.4], [0.3], [-0.2, 0.5, 0.9]]
    old = [[0.0, 0.1], [-0.3], [0.2, 0.2, 0.1]]
    advantages = [1.0, -0.5, 0.25]
    whole = inputs(new, old, advantages)
    total = loss(whole)
    total.loss.backward()
    gradients, value = [], 0.0
    for j in range(3):
        part = inputs(new[j : j + 1], old[j : j + 1], advantages[j : j + 1], sequences=3, tokens=6)
        output = loss(part)
        output.loss.backward()
        gradients += part.logprobs.grad.tolist()
        value += output.loss.item()
    assert value == pytest.approx(total.loss.item())
    assert gradients == pytest.approx(whole.logprobs.grad.tolist())


def test_terms_of_the_recipe_are_added_by_hand():
    """GRPO at ratio 1 with A = 3 and -1 is -1; half the mean entropy 0.6 comes off; -0.7 + 1.3 is the copied sum."""
    new = [[-0.7, -1.3], [-0.2]]
    x = inputs(new, new, [3.0, -1.0], entropy=[[0.5, 0.9], [0.4]], sft_mask=torch.tensor([True, False]))
    x = dataclasses.replace(x, step_sft_tokens=2)
    plain, bonus, copied = (
        policy_loss(x, LossConfig(algorithm="grpo", **terms)).loss.item()
        for terms in ({}, {"entropy_bonus": 0.5}, {"sft_coef": 0.25})
    )
    assert plain == pytest.approx(-(3 - 1) / 2)
    assert bonus - plain == pytest.approx(-0.5 * 0.6)
    assert copied - plain == pytest.approx(0.25 * (0.7 + 1.3) / 2)


def test_rloo_weighs_by_the_ratio_of_the_whole_completion():
    """Ratio exp(0.2 + 0.1) with A = 2 for RLOO; GSPO takes the root of the completion's length from it."""
    x = inputs([[0.2, 0.1]], [[0.0, 0.0]], [2.0])
    losses = [policy_loss(x, LossConfig(algorithm=name)).loss.item() for name in ("rloo", "gspo")]
    assert losses[0] != pytest.approx(losses[1])
    assert losses[0] == pytest.approx(-2 * min(math.exp(0.3), 1.2))
