"""Two gloo ranks stream their weights to a rollout worker, on a real Ray: memory, a kill in mid stream, the proof."""

import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
import torch

from configs.algorithms import LossConfig
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.ranks import RanksConfig
from kimi_vl import TinySizes, create_tiny_checkpoint, load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rl.distributed.learner_group import LearnerGroup, RankSpec
from rl.learner.learner_config import LearnerConfig
from rollouts.weight_checksums import checksums
from rollouts.workers.actor import EngineSpec
from rollouts.workers.pool import RolloutPool
from rollouts.workers.start_ray import start_ray

pytestmark = pytest.mark.timeout(900)  # on a busy machine Ray takes minutes to start
SIZES = TinySizes(hidden_size=256, num_hidden_layers=12, n_routed_experts=8, moe_intermediate_size=256)
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(pool of one worker, learner of two ranks, the checkpoint's state)."""
    path = create_tiny_checkpoint(
        tmp_path_factory.mktemp("ranks") / "model", corpus=["What is 7 + 4? 11"] * 20, sizes=SIZES
    )
    started = start_ray(3)
    stop, barred = stop_and_barred_ids(path, load_processor(path))
    spec = EngineSpec(model_path=str(path), dtype="float32", stop_ids=tuple(stop), barred_ids=tuple(barred))
    pool = RolloutPool(spec, workers=1)
    pool.worker_group.start([0])
    config = LearnerConfig(
        loss=LossConfig(algorithm="grpo"),
        optimizer=OptimizerConfig(),
        temperature=1.0,
        total_steps=1,
        max_new_tokens=8,
    )
    learner = LearnerGroup(
        RankSpec(
            model_path=str(path),
            model=ModelConfig(path=str(path)),
            ranks=RanksConfig(count=2),
            learner=config,
            barred_ids=tuple(barred),
            random=torch.get_rng_state(),
            skipped=None,
        )
    )
    yield pool, learner, load_model(path).state_dict()
    learner.close()
    pool.close()
    if started:
        ray.shutdown()


class MemoryWatch(threading.Thread):
    """The growth of each process's own memory and of what it maps of shared memory, at the peak, in bytes."""

    def __init__(self):
        super().__init__(daemon=True)
        self.over, self.names = threading.Event(), {}
        for process in psutil.Process().children(recursive=True):
            title = (process.cmdline() or [""])[0]
            if title.startswith(("ray::RankActor", "ray::RolloutActor")):
                self.names[process.pid] = title
        self.before = {pid: self.read(pid) for pid in self.names}
        self.peak = dict(self.before)

    @staticmethod
    def read(pid):
        text = Path(f"/proc/{pid}/status").read_text()
        return tuple(int(text.split(key)[1].split()[0]) << 10 for key in ("RssAnon:", "RssShmem:"))

    def run(self):
        while not self.over.wait(0.002):
            for pid in self.names:
                self.peak[pid] = tuple(map(max, self.peak[pid], self.read(pid)))

    def growth(self):
        self.over.set()
        self.join()
        return [tuple(a - b for a, b in zip(self.peak[p], self.before[p], strict=True)) for p in self.names]


def test_no_process_holds_more_than_three_buckets_beside_the_one_copy_in_the_store(made):
    pool, learner, state = made
    sizes = []

    def measured(buckets):
        for bucket in buckets:
            sizes.append(sum(sent.nbytes for sent in bucket.tensors))
            yield bucket

    pool.publish(learner.weight_stream(pool.dtype), version=1)  # imports, and gloo's buffers
    watch = MemoryWatch()
    watch.start()
    stream = learner.weight_stream(pool.dtype)
    pool.publish(replace(stream, buckets=measured(stream.buckets)), version=2)
    growth = watch.growth()
    assert len(growth) == 3
    assert len(sizes) > 5
    assert sum(sizes) == sum(tensor.nbytes for tensor in state.values())
    for own, shared in growth:
        assert own < 3 * max(sizes) + 8 * MEGABYTE, "a fourth bucket would be 15 MB"
        assert shared < 1.1 * sum(sizes)
    assert pool.worker_group.weight_checksums() == [checksums(state)]


def test_a_worker_that_is_killed_in_mid_stream_gets_the_whole_version(made):
    pool, learner, state = made
    killed = []

    def killing(buckets):
        for number, bucket in enumerate(buckets):
            if number == 3:
                killed.append(pool.worker_group.addresses[0].pid)
                os.kill(killed[0], signal.SIGKILL)
            yield bucket

    stream = learner.weight_stream(pool.dtype)
    pool.publish(replace(stream, buckets=killing(stream.buckets)), version=3)
    assert pool.failures == {"death": 1}
    assert pool.worker_group.addresses[0].pid != killed[0]
    assert pool.worker_group.weight_checksums() == [checksums(state)]


def test_a_worker_that_is_replaced_later_gets_the_stored_version(made):
    """The learner is not asked: it may have moved on."""
    pool, learner, state = made
    pool.publish(learner.weight_stream(pool.dtype), version=4)
    pool.worker_group.fresh(0)
    pool.worker_group.load([0])
    assert pool.worker_group.weight_checksums() == [checksums(state)]
