"""Sampling functions against distributions and hand-computed numbers."""

import math

import numpy as np
import pytest
import torch

from configs.rl import MIN_TEMPERATURE, SamplingConfig
from rollouts.engines.sampling import (
    barred_token_mask,
    choose_tokens,
    draw,
    filter_logprobs,
    policy_logprobs,
    sample_uniforms,
)

FREE = torch.zeros(4, dtype=torch.bool)
PROBABILITIES = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
LAST = 1 - 2**-53  # the largest number below 1 that a generator returns


def probabilities(sampling):
    return filter_logprobs(PROBABILITIES.log(), sampling).exp()[0].tolist()


def test_draws_are_distributed_as_the_probabilities_say():
    p = np.array([0.02, 0.5, 0.0, 0.3, 0.08, 0.1])
    count = 50_000
    table = torch.from_numpy(p).log().float().expand(count, -1)
    tokens = draw(table, torch.from_numpy(sample_uniforms(3, 0, count)))
    seen = np.bincount(tokens.numpy(), minlength=len(p))
    assert seen[2] == 0
    likely = p > 0
    statistic = (((seen - count * p) ** 2)[likely] / (count * p)[likely]).sum()
    assert statistic < 18.5, f"chi-square with 4 degrees of freedom, 0.1 % level: {statistic}"


def test_a_uniform_picks_the_token_whose_interval_holds_it():
    table = torch.tensor([0.25, 0.25, 0.5]).log().expand(6, -1)
    tokens = draw(table, torch.tensor([0.0, 0.2, 0.2500001, 0.4999, 0.5001, LAST], dtype=torch.float64))
    assert tokens.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("u", [0.0, 2**-53, 0.5, LAST])
@pytest.mark.parametrize("place", [[0, 1], [6, 7], [0, 7]])
def test_a_token_of_probability_zero_is_never_drawn(u, place, rng):
    logits = torch.from_numpy(rng.normal(size=(300, 8)) * 3).float()
    barred = barred_token_mask(8, place)
    tokens = draw(policy_logprobs(logits, 1.0, barred), torch.full((300,), u, dtype=torch.float64))
    assert not barred[tokens].any()


def test_a_large_vocabulary_loses_no_tail(rng):
    """163,840 tokens of about equal probability: fp32 sums would round the last ones away."""
    size = 163_840
    logits = torch.from_numpy(rng.normal(size=(1, size)) * 0.01).float()
    table = policy_logprobs(logits, 1.0, torch.zeros(size, dtype=torch.bool))
    uniforms = torch.tensor([LAST, 1 - 0.5 / size, 0.5], dtype=torch.float64)
    tokens = draw(table.expand(3, -1), uniforms)
    exact = np.searchsorted(np.cumsum(np.exp(table[0].double().numpy())), uniforms.numpy() * 1.0, side="right")
    assert tokens[0] == size - 1
    assert tokens[1] == size - 1
    assert abs(int(tokens[2]) - int(exact[2])) <= 1


def test_no_filter_changes_nothing():
    table = PROBABILITIES.log()
    assert filter_logprobs(table, SamplingConfig()) is table


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (SamplingConfig(top_k=1), [0, 1, 0, 0]),
        (SamplingConfig(top_k=2), [0, 4 / 7, 0, 3 / 7]),
        (SamplingConfig(top_k=9), [0.1, 0.4, 0.2, 0.3]),
        (SamplingConfig(top_p=0.3), [0, 1, 0, 0]),
        (SamplingConfig(top_p=0.41), [0, 4 / 7, 0, 3 / 7]),  # 0.4 alone is not enough
        (SamplingConfig(top_p=0.85), [0, 4 / 9, 2 / 9, 3 / 9]),
        (SamplingConfig(min_p=0.6), [0, 4 / 7, 0, 3 / 7]),  # at least 0.24
        (SamplingConfig(min_p=0.45), [0, 4 / 9, 2 / 9, 3 / 9]),  # at least 0.18
        (SamplingConfig(top_k=3, top_p=0.75), [0, 4 / 7, 0, 3 / 7]),  # of the three, 4/9 + 3/9 reach 0.75
        (SamplingConfig(top_k=3, min_p=0.7), [0, 4 / 7, 0, 3 / 7]),
        (SamplingConfig(top_p=0.95, min_p=0.45), [0, 4 / 9, 2 / 9, 3 / 9]),
    ],
)
def test_filters_keep_and_renormalise_by_hand(sampling, expected):
    assert probabilities(sampling) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("sampling", [SamplingConfig(top_p=1e-9), SamplingConfig(min_p=0.999), SamplingConfig(top_k=1)])
def test_the_likeliest_token_always_stays(sampling, rng):
    table = torch.from_numpy(rng.normal(size=(50, 30))).float().log_softmax(-1)
    filtered = filter_logprobs(table, sampling)
    assert (filtered.exp().sum(-1) - 1).abs().max() < 1e-6
    assert (filtered.argmax(-1) == table.argmax(-1)).all()


def test_temperature_and_barred_tokens_by_hand():
    logits = torch.tensor([[2.0, 0.0, 50.0, 1.0]])
    barred = barred_token_mask(4, [2])
    got = policy_logprobs(logits, 2.0, barred)[0].exp().tolist()
    total = math.exp(1.0) + 1 + math.exp(0.5)
    assert got == pytest.approx([math.exp(1.0) / total, 1 / total, 0.0, math.exp(0.5) / total])
    assert policy_logprobs(logits, 0.0, barred)[0, 0].exp() == pytest.approx(math.exp(2) / (math.exp(2) + 1 + math.e))


def test_low_precision_logits_are_normalised_in_fp32(rng):
    logits = torch.from_numpy(rng.normal(size=(4, 4))).bfloat16()
    table = policy_logprobs(logits, 1.0, FREE)
    assert table.dtype == torch.float32
    assert (table.exp().sum(-1) - 1).abs().max() < 1e-6


def test_both_logprobs_are_of_the_drawn_token():
    uniforms = torch.tensor([0.99], dtype=torch.float64)
    tokens, policy, sampler = choose_tokens(PROBABILITIES.log(), SamplingConfig(top_k=2), FREE, uniforms)
    assert tokens.tolist() == [3]
    assert policy.exp().tolist() == pytest.approx([0.3])
    assert sampler.exp().tolist() == pytest.approx([3 / 7])


def test_greedy_takes_the_likeliest_allowed_token_and_was_certain_of_it():
    barred = barred_token_mask(4, [1])
    uniforms = torch.zeros(1, dtype=torch.float64)
    tokens, policy, sampler = choose_tokens(PROBABILITIES.log(), SamplingConfig(temperature=0.0), barred, uniforms)
    assert tokens.tolist() == [3]
    assert policy.exp().tolist() == pytest.approx([0.5])  # 0.3 of the remaining 0.6
    assert sampler.tolist() == [0.0]


def test_streams_of_random_numbers_depend_on_seed_and_sample_alone():
    first = sample_uniforms(5, 1, 8)
    assert (sample_uniforms(5, 1, 20)[:8] == first).all(), "a longer limit must not change the start"
    assert not np.array_equal(sample_uniforms(5, 2, 8), first)
    assert not np.array_equal(sample_uniforms(6, 1, 8), first)
    assert first.min() >= 0
    assert first.max() < 1
    assert len(sample_uniforms(2**64 - 1, 0, 1)) == 1
    assert (sample_uniforms(-1, 0, 3) == sample_uniforms(2**64 - 1, 0, 3)).all()


def test_large_seeds_are_told_apart():
    """Neighbouring 64-bit seeds are one number as floats."""
    assert not np.array_equal(sample_uniforms(2**63 + 5, 0, 4), sample_uniforms(2**63 + 6, 0, 4))
    assert not np.array_equal(sample_uniforms(2**64 - 1, 0, 4), sample_uniforms(2**64 - 2, 0, 4))


def test_the_lowest_temperature_draws_the_likeliest_token():
    """Logits far beyond those of a model stay finite."""
    logits = 1e4 * torch.randn(64, 100, generator=torch.Generator().manual_seed(0))
    barred, uniforms = barred_token_mask(100, [3]), torch.linspace(0, 0.999, 64, dtype=torch.float64)
    coldest = SamplingConfig(temperature=MIN_TEMPERATURE, top_p=0.9, min_p=0.1)
    tokens, policy, sampler = choose_tokens(logits, coldest, barred, uniforms)
    assert tokens.tolist() == logits.masked_fill(barred, -torch.inf).argmax(-1).tolist()
    assert policy.isfinite().all()
    assert sampler.isfinite().all()
