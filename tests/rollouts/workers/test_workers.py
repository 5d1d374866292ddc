"""The pool of real Ray actors against one engine in this process."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_helpers import requests_for, tokens_of

from configs.rl import SamplingConfig
from kimi_vl import load_model
from rollouts.workers.actor import EngineSpec
from rollouts.workers.pool import RolloutPool
from rollouts.workers.start_ray import start_ray

GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=8)
SAMPLED = SamplingConfig(temperature=1.0, max_new_tokens=8, top_p=0.9)


@pytest.fixture(scope="module")
def spec(tiny_folder, tiny_ids):
    return EngineSpec(
        model_path=str(tiny_folder), dtype="float32", stop_ids=tuple(tiny_ids[0]), barred_ids=tuple(tiny_ids[1])
    )


@pytest.fixture(scope="module")
def pool(local_ray, spec):
    pool = RolloutPool(spec, workers=2)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def checkpoint_weights(tiny_folder):
    return {name: tensor.numpy().copy() for name, tensor in load_model(tiny_folder).state_dict().items()}


def test_ray_is_started_once(pool):
    assert start_ray(2) is False


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_the_pool_answers_as_the_engine_does(pool, spec, prompts, checkpoint_weights, sampling, count):
    pool.publish(checkpoint_weights, version=1)
    engine = spec.build()
    engine.load_weights(checkpoint_weights, version=1)
    requests = requests_for([*prompts, *prompts][:count], n=[2, 1, 3, 1, 2][:count])
    there, here = pool.generate(requests, sampling), engine.generate(requests, sampling)
    assert tokens_of(there) == tokens_of(here)
    for a, b in zip([c for g in there for c in g], [c for g in here for c in g], strict=True):
        assert np.abs(a.policy_logprobs - b.policy_logprobs).max() < 1e-5
        assert np.abs(a.sampler_logprobs - b.sampler_logprobs).max() < 1e-5
        assert (a.finish_reason, a.segments) == (b.finish_reason, b.segments)


def test_every_worker_serves_what_was_published(pool, spec, prompts, checkpoint_weights):
    pool.publish(checkpoint_weights, version=1)
    requests = requests_for([prompts[1], prompts[1], prompts[2], prompts[2]], n=1)
    old = tokens_of(pool.generate(requests, GREEDY))
    changed = {name: np.roll(value, 1, axis=-1).copy() for name, value in checkpoint_weights.items()}
    pool.publish(changed, version=5)
    assert pool.version == 5
    results = pool.generate(requests, GREEDY)
    assert {s.version for group in results for c in group for s in c.segments} == {5}
    new = tokens_of(results)
    assert new[0] == new[1], "requests 0 and 1 go to different workers"
    assert new[2] == new[3]
    assert new != old
    engine = spec.build()
    engine.load_weights(changed, version=5)
    assert new == tokens_of(engine.generate(requests, GREEDY))
    pool.publish(checkpoint_weights, version=6)
    assert tokens_of(pool.generate(requests, GREEDY)) == old


def test_weights_that_do_not_fit_are_told_to_the_publisher(pool, checkpoint_weights):
    pool.publish(checkpoint_weights, version=1)
    with pytest.raises(ValueError, match="weights do not fit"):
        pool.publish({"nothing": np.zeros(1)}, version=2)
    assert pool.version == 1


def test_a_spec_sets_the_threads_of_its_process(spec):
    torch.set_num_threads(2)
    spec.build()
    assert torch.get_num_threads() == 1


def test_a_spec_asks_for_the_routes_of_tokens(spec, prompts):
    requests = requests_for(prompts[:1], n=1)
    ((without,),) = spec.build().generate(requests, GREEDY)
    ((recorded,),) = replace(spec, record_experts=True).build().generate(requests, GREEDY)
    assert without.routed_experts is None
    assert len(recorded.routed_experts) == len(recorded.token_ids) == len(without.token_ids)


REFUSED = """
from rl.cli.errors import explain
from rollouts.workers.start_ray import start_ray
try:
    start_ray(1)
except Exception as error:
    print(explain(error))
"""


def test_where_ray_cannot_start_the_user_is_told_why(tmp_path):
    """Its sockets' names have at most 107 characters."""
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path / ("long" * 30))}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run([sys.executable, "-c", REFUSED], env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith("Ray cannot start on this machine ("), done.stdout + done.stderr
    assert "RAY_TMPDIR, a short path" in done.stdout
