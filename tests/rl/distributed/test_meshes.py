"""Meshes of two dimensions and shared rows: the gradient of one process, with images and fillers."""

import pytest
import rank_jobs as jobs
from test_distributed import MUON, distance, exact_muon  # noqa: F401

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from configs.ranks import RanksConfig

HSDP, ROWS, BOTH = {"replicas": 2}, {"sequence": 2}, {"replicas": 2, "sequence": 2}
CASES = [
    (4, "fp64", "uneven", HSDP),
    (4, "fp64", "one_image", HSDP),
    (4, "lora", "single", HSDP),
    (2, "fp64", "uneven", ROWS),
    (2, "fp64", "text_only", ROWS),
    (2, "checkpointing", "one_image", ROWS),
    (4, "fp64", "one_image", ROWS),
    (4, "fp64", "uneven", BOTH),
    (4, "tower", "one_image", BOTH),
    (4, "tied", "single", BOTH),
]


@pytest.mark.parametrize(("world", "kind", "batch", "options"), CASES)
def test_one_gradient_on_every_mesh(world, kind, batch, options):
    settings = jobs.config()
    gradient, _, _, metrics = jobs.one_update(None, kind, batch, settings)
    for own, _, _, own_metrics in jobs.on_ranks(world, jobs.one_update, kind, batch, settings, options):
        assert own.keys() == gradient.keys()
        assert distance(own, gradient) < 1e-6
        assert own_metrics == pytest.approx(metrics, rel=1e-5, abs=1e-6)


def test_replicas_sum_their_gradients_once_a_step():
    """As much is summed between them for many micro-batches and parts of images as for one of each."""
    loss = LossConfig(algorithm="ppo", critic=CriticConfig(backbone="own"))
    found = {
        budget: jobs.on_ranks(4, jobs.sums_between_replicas, jobs.config(loss, micro_batch_tokens=budget), HSDP)
        for budget in (10, 1000)
    }
    (many, [(rows, parts)]), (once, [(one_row, one_part)]) = (results[0] for results in found.values())
    assert rows > 1, "a step of several micro-batches"
    assert parts > 1
    assert (one_row, one_part) == (1, 1)
    assert many == once
    assert len(once) > 10, "each unit of the policy and of the critic"


@pytest.mark.parametrize("options", [HSDP, BOTH], ids=["replicas", "both"])
def test_two_updates_of_muon_and_a_checkpoint_end_alike(tmp_path, options):
    """The expert-balance loss reads the routers of the whole row; a flat mesh goes on from the checkpoint."""
    loss = LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), reference="ema", reference_decay=0.5, balance_coef=0.1)
    settings = jobs.config(loss, optimizer=MUON)
    plain = jobs.make(None, "fp64", settings)
    for _ in range(2):
        every = [plain.update(jobs.draw(plain, batch, seed=plain.version)) for batch in ("one_image", "text_only")]
    jobs.on_ranks(4, jobs.go_on, "fp64", settings, None, tmp_path / "shards", options)
    flat = jobs.on_ranks(2, jobs.go_on, "fp64", settings, tmp_path / "shards", None)
    again = jobs.on_ranks(4, jobs.go_on, "fp64", settings, tmp_path / "shards", None, options)
    for results in (flat, again):
        assert distance(results[0][0], plain.weights()) < 1e-5
        for metrics, expected in zip(results[0][1], every, strict=True):
            assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("backbone", ["shared", "own"])
def test_the_critic_of_shared_rows_is_that_of_one_process(backbone):
    settings = jobs.config(LossConfig(algorithm="ppo", critic=CriticConfig(backbone=backbone)))
    expected = jobs.critic_updates(None, settings)
    for own in jobs.on_ranks(2, jobs.critic_updates, settings, ROWS):
        for metrics, wanted in zip(own, expected, strict=True):
            assert metrics == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"replicas.*3.*divides count = 4"):
        RanksConfig(count=4, replicas=3)
    with pytest.raises(ValueError, match=r"sequence.*8.*divides count = 4"):
        RanksConfig(count=4, sequence=8)
    with pytest.raises(AssertionError, match=r"ranks.sequence = 4: must divide the model's 2 attention heads"):
        jobs.on_ranks(4, jobs.one_update, "fp64", "single", jobs.config(), {"sequence": 4})
