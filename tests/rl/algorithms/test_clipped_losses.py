"""Dr.GRPO, DAPO, CISPO, REINFORCE++ and PPO: numbers by hand, and the papers' gradients by autograd."""

import math

import pytest
import torch
from loss_helpers import RESPONSES, Table, inputs, of_tables, token_loss

from rl.algorithms.clipped_losses import clip_ratio

CLIP = {"clip_low": 0.2, "clip_high": 0.3}
ADVANTAGES = torch.tensor([0.4, -1.0, 2.0, -0.1], dtype=torch.float64)
TWO_AND_FOUR = [[0.0] * 2, [0.0] * 4]  # tokens at ratio 1


def test_grpo_is_what_it_was():
    """Loss and gradient that the first implementation gave, kept as numbers: refactoring moved nothing."""
    generator = torch.Generator().manual_seed(11)
    lengths = [3, 1, 6, 2, 5]
    new = torch.randn(17, generator=generator, dtype=torch.float64) * 0.3 - 1
    old = new + 0.3 * torch.randn(17, generator=generator, dtype=torch.float64)
    advantages = torch.randn(5, generator=generator, dtype=torch.float64).tolist()
    x = inputs(*([part.tolist() for part in side.split(lengths)] for side in (new, old)), advantages, sequences=7)
    output = token_loss("grpo", x, clip_low=0.2, clip_high=0.2)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(0.04926584819542907, rel=1e-14)
    assert output.metrics["clip_fraction"].item() == pytest.approx(7 / 17)
    expected = [0.08945002575263836, 0.10116559601327023, 0, 0.1427270849026773, 0.0022763858828884005, 0, 0]
    expected += [0.0014364796879354949, 0.001841856627701597, 0, -0.14151290609190267, 0, -0.012475295161920348, 0]
    expected += [-0.008152907175170615, 0, -0.011818172927489577]
    assert x.logprobs.grad.tolist() == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("loss", "per_token"),
    [
        ("dr_grpo", [-3 / 16, 1 / 16]),  # 2 answers of at most 8 tokens
        ("dapo", [-3 / 6, 1 / 6]),  # 6 tokens
        ("reinforce_pp", [-3 / 6, 1 / 6]),
        ("ppo", [-3 / 6, 1 / 6]),
        ("cispo", [-3 / 6, 1 / 6]),
        ("grpo", [-3 / 4, 1 / 8]),
    ],
)
def test_normalisation_by_hand(loss, per_token):
    """Two tokens with A = 3 and four with A = -1, at ratio 1."""
    x = inputs(TWO_AND_FOUR, TWO_AND_FOUR, [3.0, -1.0])
    output = token_loss(loss, x, **CLIP)
    output.loss.backward()
    assert x.logprobs.grad.tolist() == pytest.approx([per_token[0]] * 2 + [per_token[1]] * 4)
    if loss != "cispo":  # whose value carries log pi
        assert output.loss.item() == pytest.approx(2 * per_token[0] + 4 * per_token[1])


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo", "dapo", "reinforce_pp", "ppo"])
@pytest.mark.parametrize("normalization", ["sequence", "token", "fixed", "sum"])
def test_normalisation_can_be_chosen(loss, normalization):
    x = inputs(TWO_AND_FOUR, TWO_AND_FOUR, [3.0, -1.0], sequences=5, tokens=30)
    token_loss(loss, x, normalization=normalization, **CLIP).loss.backward()
    weights = {"sequence": [1 / 10, 1 / 20], "token": [1 / 30] * 2, "fixed": [1 / 40] * 2, "sum": [1 / 5] * 2}
    first, second = weights[normalization]
    assert x.logprobs.grad.tolist() == pytest.approx([-3 * first] * 2 + [second] * 4)


def test_clip_higher_lets_a_rare_token_grow_further():
    """DAPO §3.1: at ratio 1.25 a good token has lost its gradient under 0.2, and keeps it under 0.28."""
    for high, gradient in ((0.2, 0.0), (0.28, -1.25)):
        x = inputs([[math.log(1.25)]], [[0.0]], [1.0])
        token_loss("dapo", x, clip_low=0.2, clip_high=high).loss.backward()
        assert x.logprobs.grad.item() == pytest.approx(gradient)


def test_ppo_clips_each_token_by_its_own_advantage():
    """Ratios 1.5 and 0.5 twice over, with advantages of both signs: loss -(1.3 - 3 + 0.5 - 1.6) / 4."""
    ratios = [[math.log(1.5), math.log(1.5)], [math.log(0.5), math.log(0.5)]]
    x = inputs(ratios, [[0.0] * 2] * 2, [9.0, 9.0], token_advantages=[[1.0, -2.0], [1.0, -2.0]])
    output = token_loss("ppo", x, **CLIP)
    output.loss.backward()
    assert output.loss.item() == pytest.approx((-1.3 + 3.0 - 0.5 + 1.6) / 4)
    assert x.logprobs.grad.tolist() == pytest.approx([0.0, 3.0 / 4, -0.5 / 4, 0.0])
    assert output.metrics["clip_fraction"].item() == pytest.approx(0.5)


@pytest.mark.parametrize(("low", "ratio", "weight"), [(None, 9.0, 5.0), (None, 0.01, 0.01), (0.5, 0.01, 0.5)])
def test_cispo_clips_the_weight_and_keeps_the_gradient(low, ratio, weight):
    x = inputs([[math.log(ratio)]], [[0.0]], [2.0])
    output = token_loss("cispo", x, clip_low=low, clip_high=4.0)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(-weight * 2.0 * math.log(ratio))
    assert x.logprobs.grad.item() == pytest.approx(-weight * 2.0)
    assert output.metrics["clip_fraction"].item() == (weight != ratio)


def test_cispo_gradient_is_reinforce_with_clipped_weights():
    """Eq. 4: sum over tokens of sg(clip(rho)) A grad log pi, over all tokens, on a policy that has moved far."""
    theta, old = Table(1), Table(2)
    token_loss("cispo", of_tables(theta, old, ADVANTAGES), clip_low=0.4, clip_high=0.5).loss.backward()
    expected = torch.zeros_like(theta.logits)
    for response, advantage in zip(RESPONSES, ADVANTAGES, strict=True):
        new, before = theta(response), old(response)
        weight = (new - before).exp().detach().clamp(0.6, 1.5)
        assert ((weight == 0.6) | (weight == 1.5)).any()
        expected += torch.autograd.grad(-(weight * advantage * new).sum() / 12, theta.logits)[0]
    assert torch.allclose(theta.logits.grad, expected, rtol=1e-12)


@pytest.mark.parametrize("loss", ["dr_grpo", "dapo", "reinforce_pp", "ppo"])
def test_inside_the_clip_the_gradient_is_the_ratios(loss):
    """`grad rho = rho grad log pi`, token by token, where nothing is clipped."""
    theta = Table(1)
    old = Table(2, near=theta, by=0.05)
    x = of_tables(theta, old, ADVANTAGES)
    output = token_loss(loss, x, clip_low=0.5, clip_high=0.5)
    assert output.metrics["clip_fraction"] == 0
    output.loss.backward()
    count = 4 * 8 if loss == "dr_grpo" else 12
    weighted = sum(
        (a * (theta(r) - old(r)).exp().detach() * theta(r)).sum() for a, r in zip(ADVANTAGES, RESPONSES, strict=True)
    )
    [expected] = torch.autograd.grad(-weighted / count, theta.logits)
    assert torch.allclose(theta.logits.grad, expected, rtol=1e-12)


def test_no_bound_below():
    ratio = torch.tensor([1e-9, 0.5, 3.0])
    assert clip_ratio(ratio, low=None, high=1.0).tolist() == pytest.approx([1e-9, 0.5, 2.0])
    assert clip_ratio(ratio, low=0.2, high=1.0).tolist() == pytest.approx([0.8, 0.8, 2.0])
