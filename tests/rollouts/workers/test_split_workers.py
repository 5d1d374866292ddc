"""Workers whose engine is split over cards, on a real Ray with cards that are not there."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import ray

from rollouts.engines.engine_spec import EngineSpec
from rollouts.workers.nodes import alive_nodes
from rollouts.workers.worker_group import WorkerGroup, WorkerSeats

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True, kw_only=True)
class NotingSpec(EngineSpec):
    folder: str

    def build(self):
        seen = f"{os.environ['CUDA_VISIBLE_DEVICES']} {self.gpu_share}"
        (Path(self.folder) / str(os.getpid())).write_text(seen)
        return EngineSpec.build(replace(self, engine="transformers", options={}))


ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def four_cards(no_ray):
    ray.init(num_cpus=2, num_gpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize("planned", [False, True])
def test_each_worker_has_two_cards_of_its_own(four_cards, tiny_folder, tiny_ids, tmp_path, planned):
    """With the planner's seats, and without them; an engine may use all of each card."""
    stop, barred = (tuple(ids) for ids in tiny_ids)
    spec = NotingSpec(
        model_path=str(tiny_folder),
        dtype="float32",
        stop_ids=stop,
        barred_ids=barred,
        engine="vllm",
        options={"tensor_parallel_size": 2},
        folder=str(tmp_path),
    )
    seats = WorkerSeats(nodes=[alive_nodes()[0].id] * 2, share=2.0) if planned else None
    group = WorkerGroup(spec, workers=2, on_death=lambda *_: None, seats=seats)
    group.start([0, 1])
    seen = [file.read_text().split() for file in tmp_path.iterdir()]
    cards = [card for visible, _ in seen for card in visible.split(",")]
    assert sorted(cards) == ["0", "1", "2", "3"]
    assert [len(visible.split(",")) for visible, _ in seen] == [2, 2]
    assert {share for _, share in seen} == {"1.0"}
