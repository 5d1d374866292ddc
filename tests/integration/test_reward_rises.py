"""The whole loop on a trivial task: tasks, Ray workers, plug-in reward, learner, publishing. The reward must rise."""

from contextlib import closing

import numpy as np
import pytest
import torch

from configs.algorithms import ALGORITHMS, LossConfig
from configs.data import SourceConfig
from configs.optimizer import OptimizerConfig
from configs.rewards import RewardConfig
from configs.rl import RLConfig, SamplingConfig
from kimi_vl import TinySizes, create_tiny_checkpoint, load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rewards.scorer import Scorer
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.rollout_log import RolloutLog
from rl.step import Loop, run_steps
from rl.weight_sync import WeightSync, parity_prompts
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.sources.window import WindowedSource
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import PromptRenderer
from rollouts.tasks.task_samplers import build_task_sampler
from rollouts.workers.actor import EngineSpec
from rollouts.workers.pool import RolloutPool

SIZES = TinySizes(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    n_routed_experts=4,
    moe_intermediate_size=32,
    vision_hidden_size=32,
    vision_num_hidden_layers=1,
    num_merges=20,
)
PLUGIN = '''
def digits(response: str, reference: str, *, task) -> float:
    """The share of the response's characters that are digits."""
    return sum(c in "0123456789" for c in response) / max(1, len(response))
'''
STEPS = 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rises") / "tiny"
    return create_tiny_checkpoint(folder, corpus=["What is the result? 7+4=11"] * 20, sizes=SIZES)


@pytest.fixture(scope="module")
def pool(checkpoint, _cluster):
    stop, barred = stop_and_barred_ids(checkpoint, load_processor(checkpoint))
    spec = EngineSpec(model_path=str(checkpoint), dtype="float32", stop_ids=tuple(stop), barred_ids=tuple(barred))
    pool = RolloutPool(spec, workers=1)
    yield pool
    pool.close()


@pytest.fixture
def rewards_of(checkpoint, pool, tmp_path):
    """Runs the loop and returns the mean reward and the largest log-prob gap of each step."""
    (tmp_path / "plugin.py").write_text(PLUGIN)

    def run(loss, **options):
        config = RLConfig(
            steps=STEPS,
            prompts_per_step=12,
            samples_per_prompt=6,
            sampling=SamplingConfig(max_new_tokens=6),
            loss=loss,
            optimizer=OptimizerConfig(learning_rate=5e-3, warmup_steps=2),
            rewards=(RewardConfig(use="plugin.py:digits"),),
            **options,
        )
        processor = load_processor(checkpoint)
        _, barred = stop_and_barred_ids(checkpoint, processor)
        torch.set_num_threads(1)
        learner = Learner(
            load_model(checkpoint),
            LearnerConfig(loss=loss, optimizer=config.optimizer, temperature=1.0, total_steps=STEPS, max_new_tokens=6),
            barred_ids=barred,
        )
        seen = []
        with Scorer(config.rewards, base=tmp_path) as scorer:
            mixture = TaskMixture([SourceConfig(use="digit_sums")], seed=0, base=tmp_path)
            renderer = PromptRenderer(processor, max_prompt_tokens=200)
            pipeline = RolloutPipeline(
                renderer=renderer,
                generate=pool.generate,
                decode=lambda ids: processor.tokenizer.decode(ids, skip_special_tokens=True),
                scorer=scorer,
            )
            loop = Loop(
                config=config,
                task_sampler=build_task_sampler(config.decided_task_sampler, mixture, seed=1, steps=STEPS),
                source=WindowedSource(config, pipeline, pool, seed=1),
                pool=pool,
                learner=learner,
                log=RolloutLog(tmp_path / "rollouts"),
                sync=WeightSync(
                    pool=pool,
                    learner=learner,
                    prompts=parity_prompts(renderer),
                    sampling=config.sampling,
                    threshold=1e-3,
                    say=print,
                ),
                seed=1,
            )
            loop.sync.publish()
            with closing(loop.source):
                run_steps(loop, start=0, after_step=lambda step, values: seen.append(values))
        assert [v["version"] for v in seen] == list(range(1, STEPS + 1))
        assert max(v["logprob_gap_max"] for v in seen) < 1e-3, "engine and learner disagree"
        assert {"seconds/rollout", "seconds/record", "seconds/update", "seconds/publish"} <= seen[0].keys()
        return np.array([v["reward"] for v in seen])

    return run


LOSSES = [LossConfig(algorithm=name) for name in ALGORITHMS]


@pytest.mark.parametrize(
    "loss",
    [pytest.param(loss, marks=[] if loss.algorithm == "grpo" else [pytest.mark.slow]) for loss in LOSSES],
    ids=lambda loss: loss.algorithm,
)
def test_reward_rises(rewards_of, loss):
    rewards = rewards_of(loss)
    assert rewards[:2].mean() < 0.3
    assert rewards[-3:].mean() > rewards[:2].mean() + 0.4, rewards


def test_shuffled_rewards_teach_nothing(rewards_of):
    """The control: the same loop with shuffled rewards."""
    rewards = rewards_of(LossConfig(algorithm="grpo"), shuffle_rewards=True)
    assert rewards[-3:].mean() < rewards[:2].mean() + 0.2, rewards
