"""Weight sync to one worker, in multiples of memcpy, and the cost of the parity check.

One worker in a local Ray; each round times, one after the other, a plain copy of the weights, the learner's buckets
with their checksums, the write of all buckets to the object store, a whole publish from the learner's memory to the
worker's confirmation, and the parity check.

    python benchmarks/publish.py [--quick]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import ray
import torch

from configs.algorithms import LossConfig
from configs.optimizer import OptimizerConfig
from configs.rl import SamplingConfig
from kimi_vl import TinySizes, create_tiny_checkpoint, load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.weight_sync import WeightSync, parity_prompts
from rollouts.tasks.prompts import PromptRenderer
from rollouts.workers.actor import EngineSpec
from rollouts.workers.pool import RolloutPool
from rollouts.workers.start_ray import start_ray

SMALL = TinySizes()
LARGE = TinySizes(hidden_size=512, num_hidden_layers=10, n_routed_experts=16, moe_intermediate_size=384)


def build(folder: Path, sizes: TinySizes) -> tuple[RolloutPool, WeightSync]:
    """A pool of one worker and a learner with the same tiny model."""
    path = create_tiny_checkpoint(folder / "model", corpus=["What is 7 + 4? 11"] * 20, sizes=sizes)
    processor = load_processor(path)
    stop, barred = stop_and_barred_ids(path, processor)
    spec = EngineSpec(model_path=str(path), dtype="float32", stop_ids=tuple(stop), barred_ids=tuple(barred))
    pool = RolloutPool(spec, workers=1)
    config = LearnerConfig(
        loss=LossConfig(algorithm="grpo"),
        optimizer=OptimizerConfig(),
        temperature=1.0,
        total_steps=1,
        max_new_tokens=8,
    )
    learner = Learner(load_model(path), config, barred_ids=barred)
    prompts = parity_prompts(PromptRenderer(processor, max_prompt_tokens=4096))
    sync = WeightSync(pool=pool, learner=learner, prompts=prompts, sampling=SamplingConfig(), threshold=1e-3, say=print)
    return pool, sync


def one_round(pool: RolloutPool, sync: WeightSync, version: int, flat: np.ndarray) -> dict[str, float]:
    """Seconds of each part, once."""
    target, seconds = np.ones_like(flat), {}  # written once, so that no page is new
    began = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        seconds[name] = time.perf_counter() - began
        began = time.perf_counter()

    np.copyto(target, flat)
    lap("memcpy")
    buckets = list(sync.learner.weight_stream(pool.dtype).buckets)
    lap("buckets")
    references = [ray.put(list(bucket.data)) for bucket in buckets]
    lap("object_store")
    del references
    began = time.perf_counter()
    pool.publish(sync.learner.weight_stream(pool.dtype), version=version)
    lap("publish")
    sync.learner.version = version
    sync.gap()
    lap("parity")
    return seconds


def measure(pool: RolloutPool, sync: WeightSync, rounds: int) -> tuple[dict[str, float], int]:
    """Median seconds of each part, and the bytes of the weights. The first round is not counted."""
    flat = np.concatenate([value.reshape(-1) for value in sync.learner.weights().values()])
    times: dict[str, list[float]] = defaultdict(list)
    for version in range(rounds + 1):
        for name, seconds in one_round(pool, sync, version, flat).items():
            times[name].append(seconds)
    return {name: statistics.median(values[1:]) for name, values in times.items()}, flat.nbytes


def main() -> None:
    """Measure, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the small model and few rounds: under a minute")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    started = start_ray(1)
    rounds = 5 if quick else 15
    with tempfile.TemporaryDirectory() as folder:
        pool, sync = build(Path(folder), SMALL if quick else LARGE)
        seconds, size = measure(pool, sync, rounds)
        pool.close()
    if started:
        ray.shutdown()
    print(
        json.dumps(
            {
                "benchmark": "publish",
                "rounds": rounds,
                "megabytes": round(size / 1e6, 1),
                "seconds": {name: round(value, 5) for name, value in seconds.items()},
                "object_store_to_memcpy": round(seconds["memcpy"] / seconds["object_store"], 3),
                "publish_to_memcpy": round(seconds["memcpy"] / seconds["publish"], 3),
                "parity_to_publish": round(seconds["parity"] / seconds["publish"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
