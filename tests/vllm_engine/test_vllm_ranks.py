"""Two learner ranks stream to two workers with vLLM: same tensors afterwards, bytes moved, a kill in mid stream."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import ray
import torch
from readable_spec import Readable
from vllm_helpers import SIZES, build_plain, move

from configs.algorithms import LossConfig
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.ranks import RanksConfig
from kimi_vl import load_model, load_processor, save_with_code
from kimi_vl.family import stop_and_barred_ids
from rl.distributed.learner_group import LearnerGroup, RankSpec
from rl.learner.learner_config import LearnerConfig
from rollouts.weight_stream import stream_of
from rollouts.workers.pool import RolloutPool
from rollouts.workers.start_ray import start_ray

pytestmark = pytest.mark.timeout(1200)  # each worker imports vLLM, on a machine that may be busy
LARGER = replace(SIZES, hidden_size=256, num_hidden_layers=8, n_routed_experts=8, moe_intermediate_size=256)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(pool of two workers, learner of two ranks, a model), all with the weights of one folder."""
    plain = build_plain(tmp_path_factory.mktemp("ranks") / "made", LARGER)
    folder = save_with_code(load_model(plain), load_processor(plain), plain.with_name("export"))
    stop, barred = (tuple(ids) for ids in stop_and_barred_ids(str(folder), load_processor(folder)))
    started = start_ray(4)
    spec = Readable(model_path=str(folder), dtype="float32", stop_ids=stop, barred_ids=barred, engine="vllm")
    pool = RolloutPool(spec, workers=2)
    pool.worker_group.start([0, 1])
    config = LearnerConfig(
        loss=LossConfig(), optimizer=OptimizerConfig(), temperature=1.0, total_steps=1, max_new_tokens=20
    )
    learner = LearnerGroup(
        RankSpec(
            model_path=str(folder),
            model=ModelConfig(path=str(folder)),
            ranks=RanksConfig(count=2),
            learner=config,
            barred_ids=barred,
            random=torch.get_rng_state(),
            skipped=None,
        )
    )
    yield pool, learner, load_model(folder)
    learner.close()
    pool.close()
    if started:
        ray.shutdown()


def processes(title):
    """Ids of this test's actors whose title begins so, in the order in which they started."""
    found = [p for p in psutil.Process().children(recursive=True) if (p.cmdline() or [""])[0].startswith(title)]
    return [p.pid for p in sorted(found, key=lambda p: p.create_time())]


def sent_by(pid):
    """Bytes that a process has written by system calls, those to gloo's sockets among them; Ray's calls are others."""
    return int(Path(f"/proc/{pid}/io").read_text().split("wchar: ")[1].split()[0])


def test_vllm_holds_what_the_ranks_send_and_no_byte_goes_where_it_need_not(made):
    """vLLM's own tensors, packed, against those that it read from the folder; the bytes against their minimum.

    Each rank sends its half to the other, since the gather is one of all ranks; the second rank's half alone would do.
    The driver gets references, and a worker maps the store.
    """
    pool, learner, model = made
    of_folder = pool.worker_group.weight_checksums()
    assert of_folder[0] == of_folder[1] != {}
    pool.publish(stream_of(move(model).state_dict()), version=1)
    others = pool.worker_group.weight_checksums()
    assert others[0] == others[1]
    assert sum(of_folder[0][name] != value for name, value in others[0].items()) > 60
    pool.publish(learner.weight_stream(pool.dtype), version=2)  # connects gloo
    sizes = []

    def measured(buckets):
        for bucket in buckets:
            sizes.append(sum(sent.nbytes for sent in bucket.tensors))
            yield bucket

    ranks, workers = processes("ray::RankActor"), processes("ray::RolloutActor")
    assert (len(ranks), len(workers)) == (2, 2)
    before = {pid: sent_by(pid) for pid in (*ranks, *workers, os.getpid())}
    stream = learner.weight_stream(pool.dtype)
    pool.publish(replace(stream, buckets=measured(stream.buckets)), version=3)
    found = {pid: (sent_by(pid) - before[pid]) / sum(sizes) for pid in before}
    print(f"{sum(sizes) / 1e6:.1f} MB in {len(sizes)} buckets; sent, in shares of them: {list(found.values())}")
    assert len(sizes) > 4
    assert all(0.5 <= found[pid] < 0.52 for pid in ranks)
    assert all(found[pid] < 0.02 for pid in (*workers, os.getpid()))
    assert pool.worker_group.weight_checksums() == of_folder


def test_a_worker_with_vllm_that_is_killed_in_mid_stream_gets_the_whole_version(made):
    pool, learner, model = made
    pool.publish(learner.weight_stream(pool.dtype), version=4)
    expected = pool.worker_group.weight_checksums()
    pool.publish(stream_of(move(model).state_dict()), version=5)
    killed = pool.worker_group.addresses[1].pid

    def killing(buckets):
        for number, bucket in enumerate(buckets):
            if number == 3:
                os.kill(killed, signal.SIGKILL)
            yield bucket

    stream = learner.weight_stream(pool.dtype)
    pool.publish(replace(stream, buckets=killing(stream.buckets)), version=6)
    assert pool.failures == {"death": 1}
    assert pool.worker_group.addresses[1].pid != killed
    assert pool.worker_group.weight_checksums() == expected
