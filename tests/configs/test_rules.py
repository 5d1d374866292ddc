"""Combinations of keys that cannot be meant are refused, whoever builds the config."""

import pytest

from configs.load import ConfigError, load_recipe
from configs.schema import (
    LengthRewardConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    RewardConfig,
    RLConfig,
    TinyConfig,
)

RULES = [
    ("model.tiny.hidden_size=0", "model.tiny.hidden_size = 0: must be 1 or more"),
    ("model.tiny.num_experts_per_tok=9", "model.tiny.num_experts_per_tok = 9: must be at most n_routed_experts = 8"),
    ("model.path=''", "model.path = '': must be `tiny`, a folder, or a hub name"),
    (
        "model={path: org/x, tiny: {hidden_size: 64}}",
        "model.path = 'org/x': must be tiny where sizes are given under tiny; other weights have their own",
    ),
    ("rl.rewards.0.weight=0", "rl.rewards.0.weight = 0.0: must be anything but 0: leave the term out instead"),
    ("rl.rewards=[]", "rl.rewards = (): must be at least one term"),
    (
        "rl.length_reward={weight: -1}",
        "rl.length_reward.weight = -1.0: must be greater than 0 (length_reward: null for none)",
    ),
    ("rl.length_reward={weight: 1, warmup_steps: -1}", "rl.length_reward.warmup_steps = -1: must be 0 or more"),
    (
        "rl.optimizer.adamw_learning_rate=1",
        "rl.optimizer.adamw_learning_rate = 1.0: must be left out: adamw reads learning_rate alone",
    ),
    (
        "rl.optimizer={name: muon, adamw_learning_rate: 0}",
        "rl.optimizer.adamw_learning_rate = 0.0: must be greater than 0",
    ),
    ("rl.optimizer.weight_decay=-1", "rl.optimizer.weight_decay = -1.0: must be 0 or more"),
    ("rl.optimizer.final_fraction=0.1", "rl.optimizer.final_fraction = 0.1: must be 0 where schedule is constant"),
    ("rl.loss={algorithm: grpo, tau: 0.5}", "rl.loss.tau = 0.5: must be left at 0.1: grpo does not read it"),
    (
        "rl.loss={algorithm: kimi_k15, clip_low: 0.1}",
        "rl.loss.clip_low = 0.1: must be left at 0.2: kimi_k15 does not read it",
    ),
    (
        "rl.loss={algorithm: kimi_k15, clip_high: 0.3}",
        "rl.loss.clip_high = 0.3: must be left at 0.2: kimi_k15 does not read it",
    ),
    (
        "rl.loss={algorithm: kimi_k15, normalize_std: false}",
        "rl.loss.normalize_std = False: must be left at True: kimi_k15 does not read it",
    ),
    ("rl.samples_per_prompt=1", "rl.samples_per_prompt = 1: must be 2 or more (a group)"),
    ("threads=0", "threads = 0: must be 1 or more, or left out"),
    ("output_dir=''", "output_dir = '': must be a folder's name"),
    (
        "instruct={steps: 1, batch_size: 4, micro_batches: 3}",
        "instruct.micro_batches = 3: must be a divisor of batch_size = 4",
    ),
]


@pytest.mark.parametrize(("override", "expected"), RULES, ids=[override for override, _ in RULES])
def test_a_rule(tmp_path, override, expected):
    path = tmp_path / "r.yaml"
    path.write_text("name: q\noutput_dir: x\nrl: {steps: 3}\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, [override])
    assert str(caught.value) == f"command line: {expected}"


def test_what_is_meant_passes():
    assert OptimizerConfig(name="muon", adamw_learning_rate=1e-3, schedule="cosine", final_fraction=0.1)
    assert LossConfig(algorithm="grpo", clip_high=0.28, normalize_std=False, reset_optimizer=True)
    assert LossConfig(algorithm="kimi_k15", tau=0.5, reset_optimizer=True)
    assert ModelConfig(path="org/x", tiny=TinyConfig())
    assert RewardConfig(weight=-0.1)  # a penalty
    assert RLConfig(steps=1, length_reward=LengthRewardConfig(weight=0.1))
