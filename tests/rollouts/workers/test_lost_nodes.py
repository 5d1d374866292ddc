"""Nodes of a real cluster that are lost: their workers are retired, the rest gives the same completions."""

import os
import signal
import time

import pytest
import ray
from engine_helpers import requests_for
from ray.cluster_utils import Cluster

from configs.rl import SamplingConfig
from kimi_vl import load_model
from rollouts.workers.actor import EngineSpec, WorkerError
from rollouts.workers.dispatcher import RequestDispatcher
from rollouts.workers.pool import RolloutPool

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]  # raylets and workers: minutes on a busy machine
SAMPLED = SamplingConfig(temperature=1.0, max_new_tokens=12)
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@pytest.fixture
def cluster(no_ray):
    """A head without room for a worker; each node that a test adds has room for one."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
    ray.init(address=made.address, log_to_driver=False, configure_logging=False)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.fixture
def made(cluster, tiny_folder, tiny_ids, monkeypatch):
    """(pool of two workers on two nodes, what it says)."""
    monkeypatch.setattr("rollouts.workers.worker_group.ROOM_SECONDS", 3.0)
    for _ in range(2):
        cluster.add_node(**NODE)
    stop, barred = tiny_ids
    spec = EngineSpec(model_path=str(tiny_folder), dtype="float32", stop_ids=tuple(stop), barred_ids=tuple(barred))
    said = []
    pool = RolloutPool(spec, workers=2, say=said.append)
    yield pool, said
    pool.close()


def lose_node_of(cluster, pool, slot):
    """Kill the raylet under a worker, as if its machine had lost power."""
    name = pool.worker_group.addresses[slot].node
    [node] = [node for node in cluster.worker_nodes if node.node_id == name]
    cluster.remove_node(node, allow_graceful=False)
    os.kill(pool.worker_group.addresses[slot].pid, signal.SIGKILL)  # it would notice in a second or two


def bits(groups):
    return [(c.token_ids.tolist(), c.policy_logprobs.tobytes()) for group in groups for c in group]


def test_the_run_goes_on_with_fewer_workers_and_takes_them_back(cluster, made, tiny_folder, prompts):
    pool, said = made
    weights = {name: (t * 1.5).numpy().copy() for name, t in load_model(tiny_folder).state_dict().items()}
    pool.publish(weights, version=1)
    requests = requests_for([*prompts, *prompts], n=3)
    expected = pool.generate(requests, SAMPLED)

    found = {}
    dispatcher = RequestDispatcher(pool, SAMPLED, on_completions=found.__setitem__, room=None)

    def step():
        found.clear()
        dispatcher.submit(dict(enumerate(requests)))
        dispatcher.wait_until(lambda: len(found) == len(requests))
        return bits([found[i] for i in range(len(requests))])

    assert step() == bits(expected)
    lose_node_of(cluster, pool, 1)
    assert step() == bits(expected), "the batch of the lost worker has other bits, or requests were lost"
    [line] = said
    assert "worker 1: death" in line
    assert "it is retired: the run goes on with 1 of 2 workers, and takes it back once there is room" in line
    assert pool.metrics()["workers/retired"] == 1
    assert bits(pool.generate(requests, SAMPLED)) == bits(expected), "an evaluation"
    assert len(pool.generate_on_each(requests[:1], SAMPLED)) == 1, "the parity check asks those that are there"
    assert step() == bits(expected)

    cluster.add_node(**NODE)
    deadline = time.monotonic() + 60
    while pool.worker_group.retired and time.monotonic() < deadline:
        pool.publish(weights, version=pool.version + 1)
    assert said[1:] == ["worker 1 is back: there is room for it again"]
    assert pool.metrics()["workers/retired"] == 0
    assert step() == bits(expected)
    dispatcher.close()

    for slot in (0, 1):
        lose_node_of(cluster, pool, slot)
    with pytest.raises(WorkerError, match=r"no rollout worker is left of 2: .* takes 1 CPU and 0 GPU; .*Add a node"):
        pool.generate(requests, SAMPLED)


def test_requests_of_a_lost_node_go_to_the_others(cluster, made, prompts):
    """In an asynchronous run each request is passed on once."""
    pool, said = made
    found = {}

    def take(key, completions):
        assert key not in found
        found[key] = completions

    dispatcher = RequestDispatcher(pool, SAMPLED, on_completions=take, room=4)
    pool.worker_group.start([0, 1])
    requests = requests_for([*prompts, *prompts], n=2)
    expected = pool.generate(requests, SAMPLED)
    dispatcher.submit(dict(enumerate(requests)))
    lose_node_of(cluster, pool, 0)
    dispatcher.wait_until(lambda: len(found) == len(requests))
    tokens = [[c.token_ids.tolist() for c in group] for group in expected]
    assert [[c.token_ids.tolist() for c in found[i]] for i in range(len(requests))] == tokens
    assert pool.metrics()["workers/retired"] == 1
    assert "it is retired" in said[0]
    dispatcher.close()
