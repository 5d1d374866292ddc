"""Ray actors around engines, and the pool that deals requests to them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch

from configs.schema import SamplingConfig
from kimi_vl import load_model
from rollouts.engines.transformers import TransformersEngine
from rollouts.types import Completion, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an actor needs to build its engine: sent once, weights follow by `publish`."""

    model_path: str
    dtype: str
    stop_ids: tuple[int, ...]
    barred_ids: tuple[int, ...]
    threads: int = 1

    def build(self) -> TransformersEngine:
        """Load the model and wrap it."""
        torch.set_num_threads(self.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = load_model(self.model_path, dtype=getattr(torch, self.dtype))
        torch.nn.Module.to(model, device)
        return TransformersEngine(model, stop_ids=self.stop_ids, barred_ids=self.barred_ids)


@ray.remote
class RolloutActor:
    """One engine in one process. All the work is the engine's."""

    def __init__(self, spec: EngineSpec) -> None:
        self.engine = spec.build()

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        """Completions of each request, in order."""
        return self.engine.generate(requests, sampling)

    def load_weights(self, weights: Mapping[str, np.ndarray], version: int) -> int:
        """Take new weights; answer with the version now served."""
        self.engine.load_weights(weights, version=version)
        return self.engine.version


class StaleWorker(RuntimeError):
    """A worker answered with another version than the one published."""


class RolloutPool:
    """`workers` actors that serve one policy version. Which worker takes a request depends on its position alone."""

    def __init__(self, spec: EngineSpec, *, workers: int) -> None:
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": _gpu_share(workers), "max_restarts": 0}
        self._actors = [RolloutActor.options(**options).remote(spec) for _ in range(workers)]
        self.version = 0

    def publish(self, weights: Mapping[str, np.ndarray], *, version: int) -> None:
        """Give every worker the weights of `version`: written once to the object store, read by all without a copy.

        Raises StaleWorker if a worker does not confirm the version.
        """
        reference = ray.put(dict(weights))
        served = ray.get([actor.load_weights.remote(reference, version) for actor in self._actors])
        if any(v != version for v in served):
            raise StaleWorker(f"published version {version}, but the workers serve {served}")
        self.version = version

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        """Completions of each request, in order; request i goes to worker i mod workers."""
        count = len(self._actors)
        futures = [
            actor.generate.remote(list(requests[start::count]), sampling)
            for start, actor in enumerate(self._actors)
            if start < len(requests)
        ]
        results: list[list[Completion]] = [[] for _ in requests]
        for start, group in enumerate(ray.get(futures)):
            for offset, completions in enumerate(group):
                results[start + offset * count] = completions
        return results

    def close(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)  # pyright: ignore[reportArgumentType]
        self._actors = []


def _gpu_share(workers: int) -> float:
    """GPUs of one worker: one each where there are enough, else an equal part that leaves one part to the learner."""
    gpus = ray.cluster_resources().get("GPU", 0.0)
    return 1.0 if gpus > workers else gpus / (workers + 1)


def start_ray(workers: int) -> bool:
    """Join the cluster that RAY_ADDRESS names (as a submitted job does), or start a local one.

    Returns True if a local one was started, so that the caller shuts down what it started.
    """
    if ray.is_initialized():
        return False
    joins = bool(os.environ.get("RAY_ADDRESS"))
    extra = {} if joins else {"num_cpus": max(workers + 1, os.cpu_count() or 1), "include_dashboard": False}
    ray.init(log_to_driver=False, configure_logging=False, **extra)
    return True
