"""A run on a real cluster that loses a whole node, with a learner rank and a rollout worker on it."""

import os
import re
import signal
import threading
import time

import psutil
import pytest
import ray
from conftest import Mini
from ray.cluster_utils import Cluster
from ray.util.state import list_actors
from test_resume import SAME, different

from kimi_vl import load_model
from rl.run.trackers.jsonl_tracker import read_metrics

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(1200)]  # raylets, workers and ranks: minutes on a busy machine
NODE = {"num_cpus": 4, "object_store_memory": 100_000_000}  # room for all ranks and workers


@pytest.fixture
def cluster(no_ray):
    """A head without room, and two nodes."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": True})
    ray.init(address=made.address, log_to_driver=False, configure_logging=False)
    for _ in range(2):
        made.add_node(**NODE)
    yield made
    ray.shutdown()
    made.shutdown()


class NodeKiller(threading.Thread):
    """Once a step is recorded, ends the node of a learner rank, and every process of ours on it."""

    def __init__(self, mini, cluster, step):
        super().__init__(daemon=True)
        self.mini, self.cluster, self.step, self.lost, self.over = mini, cluster, step, [], threading.Event()

    def run(self):
        while not self.over.is_set() and self.mini.last_step("rl") < self.step:
            time.sleep(0.01)
        if self.over.is_set():
            return
        actors = [a for a in list_actors(filters=[("state", "=", "ALIVE")]) if a.node_id]
        rank = next(a for a in actors if a.class_name == "RankActor")
        self.lost = sorted(a.class_name for a in actors if a.node_id == rank.node_id)
        [node] = [node for node in self.cluster.worker_nodes if node.node_id == rank.node_id]
        self.cluster.remove_node(node, allow_graceful=False)
        for actor in actors:
            if actor.node_id == rank.node_id and psutil.pid_exists(actor.pid):
                os.kill(actor.pid, signal.SIGKILL)  # they would notice in a second or two


def test_a_run_that_loses_a_node_ends_as_an_undisturbed_one(cluster, tmp_path):
    calm, mini = (Mini(tmp_path / name, ["rl.ranks.count=2"]) for name in ("calm", "lossy"))
    calm.here()
    killer = NodeKiller(mini, cluster, step=3)
    killer.start()
    printed = mini.here()
    killer.over.set()
    killer.join()
    assert {"RankActor", "RolloutActor"} <= set(killer.lost), "it was killed too late"
    assert "worker 0: death" in printed or "worker 1: death" in printed
    assert re.search(r"learner rank [01] of 2 died; rl goes back to its newest checkpoint with new ranks", printed)
    final, expected = (load_model(m.run_folder / "rl" / "model").state_dict() for m in (mini, calm))
    assert different(final, expected) == []
    assert mini.rollouts() == calm.rollouts(), "a rollout was lost, or is there twice"
    rows, wanted = (read_metrics(m.run_folder / "metrics.jsonl", stage="rl") for m in (mini, calm))
    assert [[r[name] for name in SAME] for r in rows] == [[r[name] for name in SAME] for r in wanted]
