"""What travels to learner ranks on three raylets, in bytes of each node's object store."""

import numpy as np
import pytest
import ray
import torch
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
from rl_helpers import barred_ids, build_model, make_prompt, make_samples, make_scored

from configs.algorithms import LossConfig
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.ranks import RanksConfig
from rl.distributed.learner_group import LearnerGroup, RankSpec
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.types import ModelOutputs
from rollouts.sources.group_building import make_groups

pytestmark = pytest.mark.timeout(600)  # raylets: minutes on a busy machine
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}
CONFIG = LearnerConfig(
    loss=LossConfig(algorithm="grpo"),
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


def test_ranks_get_no_group_where_nothing_is_read_and_update_as_one_process_does(group, rng, model):
    prompt = make_prompt(rng, model, text=2_000, grids=((8, 8),))
    groups = make_groups([prompt], [[make_scored(prompt, reward) for reward in (1.0, 0.0)]])
    before = received()
    assert group.model_outputs(groups) == [[ModelOutputs(), ModelOutputs()]]
    assert not (received() - before).any()

    samples = make_samples(rng, model)
    alone = Learner(model, CONFIG, barred_ids=barred_ids(model))
    assert group.update(samples) == pytest.approx(alone.update(samples), rel=1e-4, abs=1e-6)
    patches = sum(p.pixel_values.nbytes for p in {s.prompt.id: s.prompt for s in samples}.values())
    assert (received() - before > patches).all(), "what is counted misses what is sent"
