"""KL, entropy, imitation, the value loss and the mismatch correction: by hand, and on average over a policy."""

import math
from dataclasses import replace

import pytest
import torch
from loss_helpers import RESPONSES, Table, inputs, of_tables

from configs.algorithms import KLConfig, LossConfig
from configs.correction import CorrectionConfig
from rl.algorithms.loss_terms import entropy_term, kl_estimate, kl_term, sft_term, value_loss
from rl.algorithms.mismatch_correction import correct_mismatch
from rl.algorithms.policy_loss import policy_loss

ADVANTAGES = torch.tensor([0.4, -1.0, 2.0, -0.1], dtype=torch.float64)


def test_kl_estimators_by_hand():
    d = torch.tensor([0.5, -0.5, 0.0], dtype=torch.float64)
    assert kl_estimate(d, "k1").tolist() == [0.5, -0.5, 0.0]
    assert kl_estimate(d, "k2").tolist() == [0.125, 0.125, 0.0]
    assert kl_estimate(d, "k3").tolist() == pytest.approx([math.exp(-0.5) - 0.5, math.exp(0.5) - 1.5, 0.0])


def every_token(theta, reference):
    """Log-probs of all five tokens at position 0 under both, and their probabilities."""
    new = theta.logits[0].log_softmax(-1)
    return new, reference.logits[0].log_softmax(-1).detach(), new.detach().exp()


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_kl_estimators_are_right_on_average(estimator):
    new, reference, probability = every_token(Table(1), Table(2))
    exact = (probability * (new - reference)).sum()
    assert (probability * kl_estimate(new - reference, estimator)).sum().item() == pytest.approx(exact.item())


@pytest.mark.parametrize(
    ("estimator", "weighted", "right"),
    [
        ("k1", True, True),
        ("k3", True, True),
        ("k2", False, True),
        ("k3", False, False),  # DeepSeekMath's: its gradient is that of KL(ref | pi), not of KL(pi | ref)
        ("k1", False, False),  # 0 on average, so the schema refuses it
    ],
)
def test_kl_gradients_on_average(estimator, weighted, right):
    """Sum over all tokens of probability times the term's gradient, against grad KL(pi | ref)."""
    theta = Table(1)
    new, reference, probability = every_token(theta, Table(2))
    [exact] = torch.autograd.grad((new.exp() * (new - reference)).sum(), theta.logits, retain_graph=True)
    mean = torch.zeros_like(theta.logits)
    for token in range(5):
        x = inputs([[0.0]], [[0.0]], [0.0], reference_logprobs=reference[token : token + 1])
        x = replace(x, logprobs=new[token : token + 1], old_logprobs=new[token : token + 1].detach())
        term = kl_term(x, coef=1.0, estimator=estimator, importance_weighted=weighted, normalization="token")
        mean += probability[token] * torch.autograd.grad(term.loss, theta.logits, retain_graph=True)[0]
    assert torch.allclose(mean, exact, rtol=1e-9, atol=1e-12) is right
    if (estimator, weighted) == ("k1", False):
        assert mean.abs().max() < 1e-12
    if (estimator, weighted) == ("k3", False):
        [forward] = torch.autograd.grad((reference.exp() * (reference - new)).sum(), theta.logits)
        assert torch.allclose(mean, forward, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("normalization", "expected"), [("sequence", (1 + 2) / 2), ("token", 5 / 3), ("sum", 5 / 2)])
def test_kl_is_normalised_as_the_policy_loss(normalization, expected):
    """k2 of a distance sqrt(2) d^(1/2) is d: one token with 1, two with 2 each."""
    x = inputs([[2**0.5], [2.0, 2.0]], [[9.0], [9.0] * 2], [0.0, 0.0], reference_logprobs=[[0.0], [0.0, 0.0]])
    term = kl_term(x, coef=0.5, estimator="k2", importance_weighted=False, normalization=normalization)
    assert term.loss.item() == pytest.approx(0.5 * expected)


def test_without_a_reference_kl_is_to_the_policy_that_sampled():
    x = inputs([[0.3]], [[0.1]], [0.0])
    term = kl_term(x, coef=1.0, estimator="k2", importance_weighted=False, normalization="token")
    assert term.loss.item() == pytest.approx(0.02)


def test_the_entropy_bonus_is_a_mean_over_the_steps_tokens():
    entropy = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64, requires_grad=True)
    x = inputs([[0.0], [0.0, 0.0]], [[0.0], [0.0, 0.0]], [0.0, 0.0], tokens=10, entropy=entropy)
    term = entropy_term(x, coef=0.2)
    term.loss.backward()
    assert term.loss.item() == pytest.approx(-0.2 * 0.35)
    assert entropy.grad.tolist() == pytest.approx([-0.02] * 3)


def test_imitation_copies_only_what_the_mask_keeps():
    new = [[-1.0, -2.0], [-5.0], [-0.5]]
    x = inputs(
        new, new, [0.0] * 3, sft_mask=torch.tensor([True, False, True]), step_sft_tokens=6, sequences=9, tokens=20
    )
    term = sft_term(x, coef=0.1)
    term.loss.backward()
    assert term.loss.item() == pytest.approx(0.1 * 3.5 / 6)
    assert term.metrics["sft_nll"].item() == pytest.approx(3.5 / 6)
    assert x.logprobs.grad.tolist() == pytest.approx([-0.1 / 6, -0.1 / 6, 0.0, -0.1 / 6])


def test_imitation_without_a_correct_answer_is_nothing():
    x = inputs([[-1.0]], [[-1.0]], [0.0], sft_mask=torch.tensor([False]))
    assert sft_term(x, coef=0.1).loss.item() == 0


def test_the_value_loss_by_hand():
    """Within the clip, the square; outside, the larger of both squares."""
    values = torch.tensor([0.1, 0.5, 0.5, -0.5], dtype=torch.float64, requires_grad=True)
    returns = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    output = value_loss(values, old_values=torch.zeros(4), returns=returns, clip=0.2, step_tokens=8)
    output.loss.backward()
    assert output.loss.item() == pytest.approx((0.81 + 0.64 + 0.25 + 0.25) / 16)
    assert output.metrics["value_clip_fraction"].item() == pytest.approx(1 / 8)
    assert values.grad.tolist() == pytest.approx([-0.9 / 8, 0.0, 0.5 / 8, -0.5 / 8])


SAMPLER = [[0.0, math.log(4.0)], [math.log(0.5)]]  # weights 1, 1/4 and 2 where the learner's log-prob is 0
ZERO = [[0.0, 0.0], [0.0]]


@pytest.mark.parametrize(
    ("level", "mode", "expected"),
    [
        ("token", "truncate", [1.0, 0.5, 1.5]),
        ("token", "mask", [1.0, 0.0, 0.0]),
        ("sequence", "truncate", [0.5, 0.5, 1.5]),
        ("sequence", "mask", [0.0, 0.0, 0.0]),
    ],
)
def test_the_correction_by_hand(level, mode, expected):
    """Weights 1, 1/4 | 2, or 1/4 | 2 for whole answers, held to [0.5, 1.5]."""
    x = inputs(ZERO, ZERO, [1.0, 1.0], sampler_logprobs=SAMPLER)
    corrected, metrics = correct_mismatch(x, level=level, mode=mode, low=0.5, high=1.5)
    assert corrected.token_correction.tolist() == pytest.approx(expected)
    assert metrics["correction_mean"].item() == pytest.approx(sum(expected) / 3)
    outside = 2 / 3 if level == "token" else 1.0
    assert metrics["correction_outside"].item() == pytest.approx(outside)
    assert (corrected.sequence_correction is not None) == (level == "sequence")


@pytest.mark.parametrize("algorithm", ["grpo", "cispo", "gspo", "rloo", "kimi_k15"])
def test_the_correction_weighs_each_answers_gradient(algorithm):
    """On policy, each answer's gradient is the plain one times its weight."""
    theta = Table(1)
    plain = torch.zeros(4, dtype=torch.float64)
    weights = torch.tensor([0.5, 1.0, 1.5, 1.2], dtype=torch.float64)
    sampler = torch.cat([(theta(r) - w.log() / len(r)).detach() for r, w in zip(RESPONSES, weights, strict=True)])
    gradients = []
    for correction in (None, CorrectionConfig(level="sequence", high=2.0)):
        x = of_tables(theta, theta, ADVANTAGES, sampler_logprobs=sampler)
        loss = policy_loss(x, LossConfig(algorithm=algorithm, correction=correction)).loss
        [gradient] = torch.autograd.grad(loss, x.logprobs)
        gradients.append(plain.index_add(0, x.sequence_ids, gradient))
    assert gradients[1].tolist() == pytest.approx((weights * gradients[0]).tolist())


EVERYTHING = [
    LossConfig(algorithm="kimi_k15", tau=0.2, reference="frozen", correction=CorrectionConfig(level="sequence")),
    LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), correction=CorrectionConfig(mode="mask"), sft_coef=0.1),
    LossConfig(algorithm="dr_grpo", entropy_bonus=0.01),
    LossConfig(algorithm="dapo", kl=KLConfig(coef=0.1, estimator="k1", importance_weighted=True)),
    LossConfig(algorithm="gspo", clip_low=0.2, clip_high=0.2, sft_coef=0.2, kl=KLConfig(coef=0.1)),
    LossConfig(algorithm="cispo", correction=CorrectionConfig(level="sequence"), entropy_bonus=0.1),
    LossConfig(algorithm="rloo", sft_coef=0.2),
    LossConfig(algorithm="reinforce_pp", normalization="fixed"),
    LossConfig(algorithm="ppo", normalization="sequence", entropy_bonus=0.1),
]


@pytest.mark.parametrize("config", EVERYTHING, ids=lambda config: config.algorithm)
def test_shares_of_a_cut_step_add_up(config, rng):
    """Losses, gradients and metrics of answers taken one by one are those of all together."""
    lengths = [2, 1, 3]
    columns = {
        name: [rng.normal(scale=0.5, size=n).tolist() for n in lengths]
        for name in ("new", "old", "reference_logprobs", "sampler_logprobs", "entropy", "token_advantages")
    }
    if config.algorithm != "ppo":
        del columns["token_advantages"]
    sft_mask, advantages = [True, False, True], [1.0, -0.5, 0.25]

    def loss_of(part):
        cut = {name: [values[j] for j in part] for name, values in columns.items()}
        x = inputs(
            cut.pop("new"),
            cut.pop("old"),
            [advantages[j] for j in part],
            sequences=3,
            tokens=6,
            sft_mask=torch.tensor([sft_mask[j] for j in part]),
            step_sft_tokens=5,
            **cut,
        )
        output = policy_loss(x, config)
        output.loss.backward()
        return output.loss.item(), x.logprobs.grad.tolist(), {n: float(v) for n, v in output.metrics.items()}

    whole = loss_of([0, 1, 2])
    parts = [loss_of([j]) for j in range(3)]
    assert sum(p[0] for p in parts) == pytest.approx(whole[0])
    assert [g for p in parts for g in p[1]] == pytest.approx(whole[1])
    assert {n: sum(p[2][n] for p in parts) for n in whole[2]} == pytest.approx(whole[2])
    assert whole[2], "no metric"
