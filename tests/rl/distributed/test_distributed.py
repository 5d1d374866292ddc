"""The learner on several ranks, as processes joined by gloo: one gradient, one update, whatever their number."""

import numpy as np
import pytest
import rank_jobs as jobs
import torch
from rl_helpers import build_model
from torch.optim import _muon

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from configs.optimizer import OptimizerConfig
from kimi_vl import load_model

ROUNDING = 2**-8  # of bfloat16, relative: half the distance of two neighbours
MUON = OptimizerConfig(name="muon", learning_rate=1e-2, weight_decay=0.1, grad_clip=1.0)


@pytest.fixture(autouse=True)
def exact_muon(monkeypatch):
    """As in the processes of the ranks."""
    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", jobs.exact_newton_schulz)


def distance(a, b):
    """Relative norm of the difference of two dicts of arrays."""
    assert a.keys() == b.keys()
    difference = sum(float(np.square(a[n].astype(np.float64) - b[n]).sum()) for n in a)
    return (difference / sum(float(np.square(b[n].astype(np.float64)).sum()) for n in b)) ** 0.5


def moved(before, after):
    return {name: after[name].astype(np.float64) - before[name] for name in before}


@pytest.mark.parametrize(
    ("world", "kind", "batch"),
    [
        (1, "fp64", "uneven"),
        (2, "fp64", "uneven"),
        (4, "fp64", "uneven"),
        (2, "fp64", "one_image"),
        (4, "fp64", "one_image"),
        (2, "fp64", "text_only"),
        (4, "fp64", "single"),
        (3, "fp32", "uneven"),
        (2, "tied", "one_image"),
        (2, "checkpointing", "one_image"),
        (2, "lora", "one_image"),
        (2, "tower", "one_image"),
    ],
)
def test_ranks_have_one_gradient_and_make_one_update(world, kind, batch):
    settings = jobs.config()
    gradient, before, after, metrics = jobs.one_update(None, kind, batch, settings)
    results = jobs.on_ranks(world, jobs.one_update, kind, batch, settings)
    for rank, (own, start, end, own_metrics) in enumerate(results):
        assert distance(own, gradient) < 1e-6
        assert own_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)
        if rank == 0:
            assert distance(start, before) < 1e-12
            # AdamW's first step is the gradient's sign, so where that is nearly 0 rounding shows.
            assert kind == "fp32" or distance(moved(start, end), moved(before, after)) < 1e-4
        else:
            assert (start, end) == ({}, {})
    assert any("vision_tower" in name for name in gradient) == (batch != "text_only")


@pytest.mark.parametrize("world", [2, 3])
def test_images_that_pass_in_parts_have_the_same_gradient(world):
    """4, 8 and 8, and 16 patches on ranks, where 8 may pass together: ranks have one, two or no parts of their own."""
    gradient, *_ = jobs.one_update(None, "fp64", "uneven", jobs.config(micro_batch_tokens=10_000))
    for own, *_ in jobs.on_ranks(world, jobs.one_update, "fp64", "uneven", jobs.config(micro_batch_tokens=8)):
        assert distance(own, gradient) < 1e-6


RECIPES = {
    "muon": {"optimizer": MUON},
    "clipped": {"optimizer": OptimizerConfig(learning_rate=1e-3, grad_clip=0.01)},
    "minibatches": {"epochs": 2, "minibatches": 2},
    "ema": {"loss": LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), reference="ema", reference_decay=0.5)},
}


@pytest.mark.parametrize(("recipe", "kind"), [*((recipe, "fp64") for recipe in RECIPES), ("muon", "lora")])
def test_two_updates_end_alike(recipe, kind):
    settings = jobs.config(**RECIPES[recipe])
    weights, every = jobs.two_updates(None, kind, settings, {})
    results = jobs.on_ranks(2, jobs.two_updates, kind, settings, {})
    assert distance(results[0][0], weights) < 1e-5
    for _, own in results:
        for metrics, expected in zip(own, every, strict=True):
            assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("backbone", ["shared", "own"])
def test_the_critic_and_the_reference_say_the_same_on_two_ranks(backbone):
    loss = LossConfig(algorithm="ppo", kl=KLConfig(coef=0.1), critic=CriticConfig(backbone=backbone))
    settings = jobs.config(loss)
    logprobs, notes = jobs.columns_of(None, settings)
    for own, said in jobs.on_ranks(2, jobs.columns_of, settings):
        assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(own, logprobs, strict=True))
        for mine, expected in zip(said, notes, strict=True):
            assert all(np.allclose(a, b, atol=1e-6) for a, b in zip(mine, expected, strict=True))


def test_a_gradient_that_is_not_finite_on_one_rank_is_dropped_on_all():
    results = jobs.on_ranks(2, jobs.bad_step, jobs.config())
    for skipped, changed, good in results:
        assert (skipped["skipped_updates"], changed) == (1.0, set())
        assert good["skipped_updates"] == 0.0
        assert good == results[0][2]


def test_bfloat16_passes_over_fp32_weights_are_near():
    settings = jobs.config()
    weights, every = jobs.two_updates(None, "fp32", settings, {})
    ((mixed, own), _) = jobs.on_ranks(2, jobs.two_updates, "fp32", settings, {"compute_dtype": torch.bfloat16})
    assert {a.dtype for a in mixed.values()} == {np.dtype(np.float32)}
    assert 1e-6 < distance(mixed, weights) < 0.01
    assert own[0]["grad_norm"] == pytest.approx(every[0]["grad_norm"], rel=16 * ROUNDING)


def test_bfloat16_passes_have_the_gradient_of_fp32_but_for_rounding():
    """Some 60 results on the way of a gradient are rounded, forward and back: below sqrt(60) ~ 8 roundings, twice."""
    exact = jobs.first_gradient(None, "fp64", jobs.config(), {})
    half = {"compute_dtype": torch.bfloat16}
    one, two = (jobs.on_ranks(world, jobs.first_gradient, "fp32", jobs.config(), half)[0] for world in (1, 2))
    assert ROUNDING < distance(two, exact) < 16 * ROUNDING
    assert distance(two, one) < ROUNDING, "the same passes in other micro-batches, summed in fp32"


@pytest.mark.parametrize("ranks", [None, 1, 2])
def test_gradients_of_bfloat16_weights_are_summed_in_fp32(ranks):
    """64 micro-batches. Summed in bfloat16 they are off by three times as much."""
    found = [jobs.sum_of_many(None, 64)] if ranks is None else jobs.on_ranks(ranks, jobs.sum_of_many, 64)
    for gradient, exact in found:
        assert distance(gradient, exact) < 0.6 * ROUNDING


def test_float32_adapters_of_bfloat16_weights_have_one_gradient():
    one = jobs.first_gradient(None, "half", jobs.config(), {})
    for own in jobs.on_ranks(2, jobs.first_gradient, "half", jobs.config(), {}):
        assert distance(own, one) < ROUNDING, "the same passes in other micro-batches, summed in fp32"


def test_float32_adapters_of_bfloat16_weights_and_their_mean():
    loss = LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), reference="ema", reference_decay=0.5)
    (before, _, after), plain_mean = jobs.adapters(None, jobs.config(loss))
    for (start, first, second), mean in jobs.on_ranks(2, jobs.adapters, jobs.config(loss)):
        assert {a.dtype for a in second.values()} == {np.dtype(np.float32)}
        assert distance(start, before) == 0
        assert distance(start, second) > 1e-3
        assert distance(moved(before, second), moved(before, after)) < ROUNDING
        assert distance(moved(before, mean), moved(before, plain_mean)) < ROUNDING
        expected = {n: start[n] / 4 + first[n] / 4 + second[n] / 2 for n in start}
        assert distance(mean, expected) < 1e-6, "the mean of what the ranks made, in fp32"


@pytest.mark.parametrize("kind", ["fp32", "lora"])
def test_a_gathered_model_is_the_model(kind, tmp_path):
    expected = jobs.saved(None, kind, tmp_path / "one")
    jobs.on_ranks(2, jobs.saved, kind, tmp_path / "two")
    one, two = (load_model(tmp_path / n / "model", dtype=torch.float64).state_dict() for n in ("one", "two"))
    assert one.keys() == two.keys() == expected.keys()
    assert all(torch.allclose(one[n], two[n], rtol=0, atol=1e-12) for n in one)
    names = [sorted(p.name for p in (tmp_path / n / "adapter").glob("*")) for n in ("one", "two")]
    assert names[0] == names[1]
    assert bool(names[0]) == (kind == "lora")


def test_every_parameter_lies_on_one_rank():
    total = sum(p.numel() for p in build_model().parameters())
    every = jobs.on_ranks(2, jobs.held)
    assert sum(counts["weights"] for counts in every) == total
    assert sum(counts["gradients"] for counts in every) == total
    assert sum(counts["moments"] for counts in every) == 2 * total
    assert max(counts["weights"] for counts in every) < 0.52 * total


@pytest.mark.parametrize(("backbone", "alone"), [("shared", 0), ("own", 0), ("shared", 1), ("own", 1)])
def test_the_critic_learns_the_same_on_two_ranks(backbone, alone):
    settings = jobs.config(LossConfig(algorithm="ppo", critic=CriticConfig(backbone=backbone, pretrain_steps=alone)))
    every = jobs.critic_updates(None, settings)
    assert every[0]["critic_grad_norm"] > 0
    for own in jobs.on_ranks(2, jobs.critic_updates, settings):
        for metrics, expected in zip(own, every, strict=True):
            assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("balance_coef", [0.0, 0.1])
@pytest.mark.parametrize(("world", "batch"), [(2, "uneven"), (3, "one_image"), (2, "text_only"), (2, "single")])
def test_a_supervised_update_is_the_same_on_any_number_of_ranks(world, batch, balance_coef):
    _compare_supervised_updates(world, batch, balance_coef, "fp64")


def test_a_tower_is_aligned_through_a_frozen_language_model_on_two_ranks():
    """One rank has the only image, and the other's rows have nothing to learn."""
    moved_names = _compare_supervised_updates(2, "one_image", 0.0, "tower")
    assert moved_names
    assert all("vision_tower" in name or "mm_projector" in name for name in moved_names)


def _compare_supervised_updates(world, batch, balance_coef, kind):
    """Hold ranks against one process; the names of the weights that moved."""
    before, after, metrics = jobs.supervised_update(None, batch, balance_coef, kind)
    (_, end, own_metrics), *others = jobs.on_ranks(world, jobs.supervised_update, batch, balance_coef, kind)
    assert distance(moved(before, end), moved(before, after)) < 1e-4
    assert own_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)
    assert all(other == own_metrics for _, _, other in others)
    return {name for name in before if (before[name] != end[name]).any()}
