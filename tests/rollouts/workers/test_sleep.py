"""Engines that sleep while the learner works: real actors whose engine notes what it is told."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import ray
from engine_helpers import requests_for

from configs.rl import SamplingConfig
from kimi_vl import load_model
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.workers.actor import EngineSpec
from rollouts.workers.pool import RolloutPool

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]
SAMPLED = SamplingConfig(temperature=1.0, max_new_tokens=4)


@dataclass(frozen=True, kw_only=True)
class NotingSpec(EngineSpec):
    file: str

    def build(self):
        return EngineDriver(NotingEngine(EngineSpec.build(self).engine, Path(self.file)))


class NotingEngine(TransformersEngine):
    def __init__(self, engine, file):
        self.__dict__.update(engine.__dict__)
        self.file = file

    def note(self, what):
        with self.file.open("a") as file:
            file.write(what + "\n")

    def sleep(self):
        self.note("sleep")

    def wake(self):
        self.note("wake")

    def finish_load(self, version):
        self.note(f"load {version}")
        TransformersEngine.finish_load(self, version)

    def add(self, index, request, sampling):
        self.note("generate")
        TransformersEngine.add(self, index, request, sampling)


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_it_sleeps_once_and_wakes_before_the_weights_come(tiny_folder, tiny_ids, prompts, tmp_path):
    stop, barred = (tuple(ids) for ids in tiny_ids)
    file = tmp_path / "calls"
    spec = NotingSpec(
        model_path=str(tiny_folder), dtype="float32", stop_ids=stop, barred_ids=barred, file=str(file), sleeps=True
    )
    weights = {name: t.numpy().copy() for name, t in load_model(tiny_folder).state_dict().items()}
    requests, said = requests_for(prompts[:1]), []
    pool = RolloutPool(spec, workers=1, say=said.append)
    pool.publish(weights, version=1)
    pool.generate(requests, SAMPLED)
    pool.sleep()
    pool.sleep()
    with pytest.raises(AssertionError, match="engines that sleep have no weights"):
        pool.generate(requests, SAMPLED)
    pool.publish(weights, version=2)
    expected = pool.generate(requests, SAMPLED)
    assert file.read_text().split("\n")[:-1] == ["load 1", "generate", "sleep", "wake", "load 2", "generate"]

    pool.sleep()
    ray.kill(pool.worker_group.actors[0])
    pool.publish(weights, version=2)
    [again] = pool.generate(requests, SAMPLED)
    assert [c.token_ids.tolist() for c in again] == [c.token_ids.tolist() for c in expected[0]]
    assert "worker 0: death" in said[0]
    pool.close()
