"""Ranks start from the weights that the first rank reads: the same weights, one reader, one copy in memory."""

from dataclasses import replace

import pytest
import rank_jobs as jobs
import torch
from rl_helpers import SIZES, TOKENS, barred_ids, build_model
from test_distributed import distance

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from configs.model import LoraConfig, ModelConfig
from kimi_vl import load_model
from kimi_vl.tiny import build_tiny_model, tiny_config
from rl.learner.learner import Learner
from rl.learner.lora import prepare_training

PPO = LossConfig(algorithm="ppo", kl=KLConfig(coef=0.1), critic=CriticConfig(backbone="own"))
MEAN = LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), reference="ema", reference_decay=0.5)
LORA = LoraConfig(rank=2, targets=("attention", "experts", "vision"))


@pytest.mark.parametrize(
    ("loss", "lora", "world", "replicas"), [(PPO, None, 2, 1), (PPO, None, 4, 2), (PPO, LORA, 2, 1), (MEAN, LORA, 2, 1)]
)
def test_all_ranks_begin_with_the_weights_of_the_first(tmp_path, loss, lora, world, replicas):
    """Policy, reference, critic and adapters; the others are given a folder that does not exist."""
    build_model().save_pretrained(tmp_path / "model")
    settings, model_config = jobs.config(loss), ModelConfig(lora=lora)
    model = load_model(tmp_path / "model")
    torch.manual_seed(0)
    prepare_training(model, model_config, base="")
    plain = Learner(model, settings, barred_ids=barred_ids(model))
    start = plain.weights()
    expected = jobs._teach_critic(plain)
    buffers = {n: b.double().sum().item() for n, b in plain.model.named_buffers()}
    found = jobs.on_ranks(world, jobs.from_first_rank, tmp_path / "model", settings, model_config, replicas)
    before, after, _, _, _ = found[0]
    assert distance(before, start) == 0
    assert distance(after, plain.weights()) < 2e-3
    for _, _, metrics, own_buffers, training in found:
        assert own_buffers == buffers
        assert training == plain.model.training
        for values, wanted in zip(metrics, expected, strict=True):
            assert values == pytest.approx(wanted, rel=1e-3, abs=1e-4)


def test_a_folder_that_cannot_be_read_is_said_by_every_rank(tmp_path):
    with pytest.raises(AssertionError) as error:
        jobs.on_ranks(2, jobs.most_memory, tmp_path)
    said = str(error.value)
    assert "rank 0" in said
    assert "rank 1" in said
    assert said.count("rollouts.model_family.UnknownFamily") == 2, "a UserError"


def test_no_rank_but_the_first_holds_a_whole_copy(tmp_path):
    sizes = replace(SIZES, hidden_size=256, moe_intermediate_size=512, n_routed_experts=32, num_hidden_layers=5)
    model = build_tiny_model(tiny_config(sizes, num_tokens=TOKENS), seed=0)
    model.save_pretrained(tmp_path)
    whole = sum(p.numel() * p.element_size() for p in model.parameters())
    assert whole > 150e6
    most = jobs.on_ranks(4, jobs.most_memory, tmp_path)
    assert most[0] > 0.9 * whole
    assert max(most[1:]) < 0.45 * whole, "its shard, and one tensor"
