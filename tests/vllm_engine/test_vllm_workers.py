"""vLLM inside a Ray actor, as a run has it: published to, watched, and refused where its rotary kernel is used."""

import os

import numpy as np
import pytest
import ray
import torch
from broken_specs import AnyAttention, BrokenRotary
from vllm_helpers import build_prompt, embedded, gaps, move, requests_for

from configs.algorithms import LossConfig
from configs.optimizer import OptimizerConfig
from configs.rl import SamplingConfig
from kimi_vl import load_model
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.weight_stream import weight_stream
from rl.types import PromptCompletion
from rl.weight_sync import ParityError, WeightSync
from rollouts.engines.engine_spec import EngineSpec
from rollouts.workers.actor import WorkerError
from rollouts.workers.pool import RolloutPool
from rollouts.workers.start_ray import start_ray

pytestmark = pytest.mark.timeout(900)  # each worker imports vLLM, on a machine that may be busy
SAMPLING = SamplingConfig(max_new_tokens=30)
LEARNER = LearnerConfig(
    loss=LossConfig(), optimizer=OptimizerConfig(), temperature=1.0, total_steps=10, max_new_tokens=30
)


@pytest.fixture(scope="module")
def cluster():
    started = start_ray(1)
    yield
    if started:
        ray.shutdown()


def open_pool(kind, checkpoint, ids, said, dtype="float32"):
    stop, barred = ids
    spec = kind(model_path=str(checkpoint), dtype=dtype, stop_ids=tuple(stop), barred_ids=tuple(barred), engine="vllm")
    return RolloutPool(spec, workers=1, say=said.append)


def sync_of(pool, model, ids, rng):
    learner = Learner(model, LEARNER, barred_ids=ids[1])
    prompts = [build_prompt(rng, model.config), build_prompt(rng, model.config, grids=((4, 4),))]
    return WeightSync(
        pool=pool, learner=learner, prompts=prompts, sampling=SAMPLING, threshold=1e-3, say=lambda line: None
    )


def test_a_worker_with_vllm(cluster, checkpoint, ids, model, prompts, rng):
    said = []
    pool = open_pool(EngineSpec, checkpoint, ids, said)
    try:
        sync = sync_of(pool, model, ids, rng)
        for version in (1, 2):
            move(model, by=0.05, seed=version)
            sync.learner.version = version
            assert sync.publish()["parity_gap"] < 1e-4
            found = pool.generate(requests_for(prompts), SAMPLING)
            ours = load_model(checkpoint)  # the learner's has the attention of packed batches
            ours.load_state_dict(model.state_dict())
            assert max(gaps(found, embedded(ours, ids).generate(requests_for(prompts), SAMPLING))) < 1e-3
            assert {s.version for group in found for c in group for s in c.segments} == {version}
        actor = pool.worker_group.actors[0]
        before = ray.get(actor.heartbeat.remote())
        pool.generate(requests_for(prompts), SAMPLING)
        assert ray.get(actor.heartbeat.remote()) >= before + 10
        os.kill(pool.worker_group.addresses[0].pid, 9)
        assert max(gaps(pool.generate(requests_for(prompts), SAMPLING), found)) < 1e-3
        assert pool.failures == {"death": 1}
    finally:
        pool.close()


def test_new_weights_in_bfloat16(cluster, checkpoint, ids, prompts):
    """Rounding flips a few routed experts, which moves single tokens far: the middle one tells right from wrong."""
    pool = open_pool(EngineSpec, checkpoint, ids, [], dtype="bfloat16")
    model = load_model(checkpoint, dtype=torch.bfloat16)

    def gap(version):
        learner = Learner(model, LEARNER, barred_ids=ids[1])
        found = pool.generate(requests_for(prompts), SAMPLING)
        pairs = [(p, c) for p, group in zip(prompts, found, strict=True) for c in group]
        assert {s.version for _, c in pairs for s in c.segments} == {version}
        ours = learner.logprobs(
            [PromptCompletion(id=str(i), prompt=p, token_ids=c.token_ids) for i, (p, c) in enumerate(pairs)]
        )
        return np.median(np.abs(np.concatenate(ours) - np.concatenate([c.policy_logprobs for _, c in pairs])))

    try:
        for version in (1, 2):
            move(model, by=0.1, seed=version)
            pool.publish(weight_stream(model, pool.dtype), version=version)
            assert gap(version) < 0.05
        move(model, by=0.1, seed=3)
        assert gap(2) > 0.2, "weights that were not sent are seen"
    finally:
        pool.close()


def test_the_error_of_the_rotary_kernel(cluster, checkpoint, ids, model, rng):
    pool = open_pool(BrokenRotary, checkpoint, ids, [])
    try:
        with pytest.raises(ParityError, match="all tensors are equal, so the two compute different things") as caught:
            sync_of(pool, model, ids, rng).publish()
        assert float(str(caught.value).split("differ by ")[1].split()[0]) > 0.1
    finally:
        pool.close()


@pytest.mark.skipif(not torch.cpu._is_amx_tile_supported(), reason="vLLM chooses this kernel on processors with AMX")
def test_the_error_of_the_kernel_for_amx(cluster, checkpoint, ids):
    """Without the way round, vLLM takes a kernel that cannot hold float32 weights."""
    pool = open_pool(AnyAttention, checkpoint, ids, [])
    try:
        with pytest.raises(WorkerError, match="worker 0 cannot start: RuntimeError: expect weight to be bfloat16"):
            pool.publish({}, version=1)
    finally:
        pool.close()
