"""What travels to learner ranks on three raylets, in bytes of each node's object store."""

import numpy as np
import pytest
import ray
import torch
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
from rl_helpers import barred_ids, build_model, make_prompt, make_scored

from configs.algorithms import KLConfig, LossConfig
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.ranks import RanksConfig
from configs.rl import RLConfig
from rl.distributed.learner_group import LearnerGroup, RankSpec
from rl.distributed.remote_samples import RemoteSamples, fetch_samples
from rl.learner.balanced_shares import balanced_shares
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.samples import build_samples, compute_advantages
from rl.types import ModelOutputs
from rollouts.sources.group_building import make_groups

pytestmark = pytest.mark.timeout(600)  # raylets: minutes on a busy machine
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
CONFIG = LearnerConfig(
    loss=LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), reference="frozen"),
    optimizer=OptimizerConfig(learning_rate=1e-3, grad_clip=1e9),
    temperature=0.9,
    total_steps=10,
    max_new_tokens=16,
)


@pytest.fixture(scope="module")
def group(no_ray, tmp_path_factory):
    """Two ranks on a node each; the driver's node has room for none."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    ray.init(address=cluster.address, log_to_driver=False, configure_logging=False)
    for _ in range(2):
        cluster.add_node(**NODE)
    model, folder = build_model(), tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    spec = RankSpec(
        model_path=str(folder),
        model=ModelConfig(path=str(folder)),
        ranks=RanksConfig(count=2),
        learner=CONFIG,
        barred_ids=tuple(barred_ids(model)),
        random=torch.get_rng_state(),
        skipped=None,
    )
    made = LearnerGroup(spec)
    yield made
    made.close()
    ray.shutdown()
    cluster.shutdown()


def received():
    """Bytes that were ever created in each node's object store, by node; the driver's is the first."""
    nodes = sorted(ray.nodes(), key=lambda node: node["NodeID"] != ray.get_runtime_context().get_node_id())
    stats = [node_stats(node["NodeManagerAddress"], node["NodeManagerPort"]).store_stats for node in nodes]
    return np.array([own.cumulative_created_bytes for own in stats])


def test_nothing_is_sent_where_nothing_is_read(group, rng, model, monkeypatch):
    monkeypatch.setattr(group, "_reads_before_update", False)
    prompt = make_prompt(rng, model, text=2_000, grids=((8, 8),))
    groups = make_groups([prompt], [[make_scored(prompt, reward) for reward in (1.0, 0.0)]])
    before = received()
    assert group.model_outputs(groups) == [[ModelOutputs(), ModelOutputs()]]
    assert not (received() - before).any()


def test_a_node_gets_the_prompts_and_samples_of_its_own_rank_once(group, rng, model):
    prompts = [make_prompt(rng, model, text=4, grids=((32, 32),)) for _ in range(4)]
    groups = make_groups(prompts, [[make_scored(prompt, reward) for reward in (1.0, 0.0)] for prompt in prompts])
    alone = Learner(model, CONFIG, barred_ids=barred_ids(model))
    before = received()

    outputs = group.model_outputs(groups)  # reads the reference model
    for found, expected in zip(outputs, alone.model_outputs(groups), strict=True):
        for own, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(own.reference_logprobs, other.reference_logprobs, rtol=1e-4, atol=1e-5)
    config = RLConfig(steps=1, loss=CONFIG.loss)
    samples = build_samples(groups, config, outputs, compute_advantages(groups, config, outputs))
    assert group.update(samples) == pytest.approx(alone.update(samples), rel=1e-4, abs=1e-6)

    driver, *others = received() - before
    whole, beside = sum(prompt.patches.data.nbytes for prompt in prompts), 100_000  # headers, tokens, results
    assert whole < driver < whole + beside, "patches are put once, for both calls"
    for own in others:
        assert whole / 2 < own < whole / 2 + beside, "a rank reads two of the four prompts"


def test_samples_of_one_prompt_that_ranks_share(group, rng, model):
    prompt = make_prompt(rng, model, text=4, grids=((4, 4),))
    groups = make_groups([prompt], [[make_scored(prompt, reward, length=40) for reward in (1.0, 0.0, 1.0, 0.0)]])
    alone = Learner(model, CONFIG, barred_ids=barred_ids(model))
    config, outputs = RLConfig(steps=1, loss=CONFIG.loss), alone.model_outputs(groups)
    samples = build_samples(groups, config, outputs, compute_advantages(groups, config, outputs))
    headers = RemoteSamples().put(samples)
    assert [len(share) for share in balanced_shares(headers, ranks=2, budget=1_000)] == [1, 1]
    assert [sample.id for sample in fetch_samples(headers)] == [sample.id for sample in samples]
    assert all(sample.prompt.id == prompt.id for sample in fetch_samples(headers[1:3]))
