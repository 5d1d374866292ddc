"""Sharded checkpoints: what some ranks wrote, any number goes on from, and one process' checkpoint too."""

from unittest.mock import ANY

import numpy as np
import pytest
import rank_jobs as jobs
import torch
from test_distributed import MUON, distance, exact_muon  # noqa: F401

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from configs.optimizer import OptimizerConfig
from rl.checkpoint import fresh_shards, load_checkpoint, save_checkpoint, shards_of

SETTINGS = {
    "adamw": jobs.config(optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=3, grad_clip=1.0)),
    "muon": jobs.config(optimizer=MUON),
}


@pytest.mark.parametrize("optimizer", SETTINGS)
def test_what_two_ranks_wrote_goes_on_on_one_on_two_and_on_four(optimizer, tmp_path):
    settings = SETTINGS[optimizer]
    jobs.on_ranks(2, jobs.go_on, "fp64", settings, None, tmp_path / "shards")
    same = jobs.on_ranks(2, jobs.go_on, "fp64", settings, tmp_path / "shards", None)
    plain = jobs.make(None, "fp64", settings)
    start = plain.weights()
    for _ in range(2):
        every = [plain.update(jobs.draw(plain, batch, seed=plain.version)) for batch in ("one_image", "text_only")]
    assert distance(same[0][0], plain.weights()) < 1e-5
    assert distance(same[0][0], start) > 1e-3
    for world in (1, 4):
        other = jobs.on_ranks(world, jobs.go_on, "fp64", settings, tmp_path / "shards", None)
        assert distance(other[0][0], same[0][0]) < 1e-6
        for metrics, expected in zip(other[0][1], every, strict=True):
            assert metrics == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(("optimizer", "kind"), [*((optimizer, "fp64") for optimizer in SETTINGS), ("muon", "lora")])
def test_what_one_process_wrote_goes_on_on_two_ranks(optimizer, kind, tmp_path):
    settings = SETTINGS[optimizer]
    plain = jobs.make(None, kind, settings)
    for batch in ("one_image", "text_only"):
        plain.update(jobs.draw(plain, batch, seed=plain.version))
    torch.save(plain.write_checkpoint(tmp_path / "unused")(), tmp_path / "plain.pt")
    results = jobs.on_ranks(2, jobs.go_on, kind, settings, tmp_path / "plain.pt", None)
    for batch in ("one_image", "text_only"):
        plain.update(jobs.draw(plain, batch, seed=plain.version))
    assert distance(results[0][0], plain.weights()) < 1e-5


def test_a_reference_is_in_the_checkpoint(tmp_path):
    settings = jobs.config(LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), reference="ema", reference_decay=0.5))
    jobs.on_ranks(2, jobs.go_on, "fp32", settings, None, tmp_path / "shards")
    ((weights, _), _) = jobs.on_ranks(2, jobs.go_on, "fp32", settings, tmp_path / "shards", None)
    ((again, _),) = jobs.on_ranks(1, jobs.go_on, "fp32", settings, tmp_path / "shards", None)
    assert all(np.isfinite(value).all() for value in weights.values())
    assert distance(again, weights) < 1e-5


def test_a_critic_goes_on_from_one_process_to_ranks_and_back_to_one(tmp_path):
    settings = jobs.config(LossConfig(algorithm="ppo", critic=CriticConfig(backbone="own", value_learning_rate=4e-4)))
    plain = jobs.make(None, "fp64", settings)
    jobs._teach_critic(plain)
    torch.save(plain.write_checkpoint(tmp_path / "unused")(), tmp_path / "plain.pt")
    start, _ = jobs.critic_goes_on(None, settings, None, None)
    expected, counters = jobs.critic_goes_on(None, settings, tmp_path / "plain.pt", None)
    ((on_two, counted), _) = jobs.on_ranks(2, jobs.critic_goes_on, settings, tmp_path / "plain.pt", tmp_path / "shards")
    assert counted == counters
    assert distance(on_two, expected) < 1e-4
    assert distance(expected, start) > 1e-3
    ((on_one, counted_on),) = jobs.on_ranks(1, jobs.critic_goes_on, settings, tmp_path / "shards", None)
    assert counted_on > counted
    assert distance(on_one, on_two) > 1e-5


def test_a_step_that_ranks_skip_is_kept_whole():
    """As one process would replay it: whole tensors on the first rank alone, all samples of the step."""
    results = jobs.on_ranks(2, jobs.skipped_step, jobs.config())
    before, kept, (reason, there, asked) = results[0]
    assert reason == "not finite"
    assert there == asked
    assert {name: kept[name].shape for name in kept} == {
        n: p.shape for n, p in jobs.MODELS["fp32"]().state_dict().items()
    }
    assert all(np.array_equal(kept[name], before[name]) for name in before)
    assert results[1] is None, "the others keep nothing"


def test_a_flipped_byte_in_any_file_is_told_by_its_name_and_the_one_before_is_used(tmp_path):
    folder, settings = tmp_path / "checkpoints", SETTINGS["adamw"]
    for step in (1, 2):
        jobs.on_ranks(2, jobs.go_on, "fp32", settings, None, fresh_shards(folder, step))
        save_checkpoint(folder, step, {"x": step}, shards=fresh_shards(folder, step))
    shards = shards_of(folder, 2)
    files = sorted(path for path in shards.iterdir() if not path.name.startswith("checksums"))
    assert {"rest.pt", ".metadata", "__0_0.distcp", "__1_0.distcp"} <= {path.name for path in files}
    assert load_checkpoint(folder) == ({"step": 2, "x": 2, "shards": ANY}, [])
    for file in files:
        whole = file.read_bytes()
        middle = len(whole) // 2
        file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        state, [problem] = load_checkpoint(folder)
        assert state["step"] == 1
        assert f"{shards}: {file.name} not as it was written" in problem
        file.unlink()
        assert file.name in load_checkpoint(folder)[1][0]
        file.write_bytes(whole)
    assert load_checkpoint(folder)[0]["step"] == 2
