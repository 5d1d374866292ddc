"""The rollout workers of a run: a pool for the model at hand, started when it is first used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rollouts.engines.engine_spec import EngineSpec
from rollouts.model_family import family_at
from rollouts.workers.pool import RolloutPool


class RolloutWorkers:
    """Holds one pool at a time. `open_pool` starts the workers of a pool.

    Weights are published to running workers, but their engines read the RoPE base and the context when they are built.
    So a model that has others than the running workers needs new ones.
    """

    def __init__(self, spec: EngineSpec, open_pool: Callable[[EngineSpec], RolloutPool]) -> None:
        self._spec, self._open_pool = spec, open_pool
        self._pool: RolloutPool | None = None
        self._failures: Counter[str] = Counter()  # of the pools that were closed

    @property
    def pool(self) -> RolloutPool:
        """The running pool; starts one if there is none."""
        return self.start()

    def start(self) -> RolloutPool:
        """Start the workers, unless they run, and return while they still load their model."""
        if self._pool is None:
            self._pool = self._open_pool(self._spec)
            self._pool.failures.update(self._failures)
        return self._pool

    def serve(self, model_path: str) -> None:
        """Run models like the one in `model_path`, a folder or a hub id: workers of another config are ended."""
        if _positions(model_path) != _positions(self._spec.model_path):
            self.close()
            path = str(Path(model_path).resolve()) if Path(model_path).exists() else model_path
            self._spec = replace(self._spec, model_path=path)  # workers start in folders of their own

    def close(self) -> None:
        """End the workers; `pool` starts new ones."""
        if self._pool is not None:
            self._failures = self._pool.failures
            self._pool.close()
            self._pool = None


def _positions(model_path: str) -> tuple[float, int]:
    """What a stage may change of a model's config."""
    config = family_at(model_path).load_config(model_path)
    return config.rope_base, config.context
