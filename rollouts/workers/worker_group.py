"""The workers of a pool as processes: started, given weights, proven to hold them, and replaced."""

from __future__ import annotations

import contextlib
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from configs.errors import UserError
from rollouts.engines.engine_spec import EngineSpec
from rollouts.weight_checksums import LoadedWeights, checksums, differing
from rollouts.workers.actor import Address, RolloutActor, WorkerError

START_TRIES = 2
START_SECONDS = 600.0  # for a worker to load its model, or its weights
_RAISED = re.compile(r"^(?=[\w.]+(?:Error|Exception|Exit|Interrupt)\b)", re.MULTILINE)  # where a traceback says what


class StaleWorker(UserError):
    """A worker serves another version, or other weights, than those that were sent to it twice."""


class WorkerGroup:
    """`workers` actors with an engine each, all with the weights that were published last."""

    def __init__(self, spec: EngineSpec, *, workers: int, on_death: Callable[[int, str], None]) -> None:
        share = _gpu_share(workers)
        self._spec, self._on_death = replace(spec, gpu_share=share or 1.0), on_death
        self._options: dict[str, Any] = {"num_cpus": 1, "num_gpus": share, "max_restarts": 0}
        self._weights: tuple[ray.ObjectRef[Any], int] | None = None
        self._expected: Mapping[str, int] = {}
        self._unchecked: Mapping[str, np.ndarray] | None = None  # published, without checksums so far
        self._padding_stats: Counter[str] = Counter()  # what the workers computed up to the last publish
        self.addresses: dict[int, Address] = {}  # of the workers that have started
        self.actors: list[Any] = [self._new_actor() for _ in range(workers)]  # they start side by side

    def publish(self, weights: Mapping[str, np.ndarray], *, version: int) -> None:
        """Write the weights to the object store once, and have every worker load and confirm them."""
        before = self._weights, self._expected
        self._weights, self._unchecked = (ray.put(dict(weights)), version), weights
        try:
            self.load(range(len(self.actors)))
        except BaseException:
            (self._weights, self._expected), self._unchecked = before, None
            raise

    def load(self, slots: Sequence[int]) -> None:
        """Send the published weights to workers, and again to those that do not confirm them. Raises StaleWorker."""
        self.start(slots)
        if self._weights is None:
            return
        wrong, reason = list(slots), ""
        for _ in range(2):
            wrong, reason = self._send(wrong)
            if not wrong:
                return
        raise StaleWorker(f"published version {self._weights[1]} twice, but {reason}")

    def start(self, slots: Sequence[int]) -> None:
        """Wait until the workers have built their engines. Raises WorkerError where one cannot."""
        for slot in slots:
            tries = START_TRIES
            while slot not in self.addresses:
                try:
                    self.addresses[slot] = ray.get(self.actors[slot].hello.remote(), timeout=START_SECONDS)
                except GetTimeoutError as error:
                    raise WorkerError(self._no_room(slot)) from error
                except RayError as error:
                    tries -= 1
                    if not tries:
                        why = last_error(error).rstrip(".")
                        raise WorkerError(
                            f"worker {slot} cannot start: {why}. If that is memory, lower rl.workers"
                        ) from error
                    self._on_death(slot, f"while starting: {last_error(error)}")
                    self.fresh(slot)

    def fresh(self, slot: int) -> None:
        """Begin a new worker in place of one, whatever its state; `start` or `load` waits for it."""
        with contextlib.suppress(RayError):
            ray.kill(self.actors[slot])
        self.addresses.pop(slot, None)
        self.actors[slot] = self._new_actor()

    def padded_share(self) -> float:
        """Share of the positions computed up to the last publish, prompts and completions, that held no token."""
        return self._padding_stats["padded"] / max(1, self._padding_stats["computed"])

    def weight_checksums(self) -> list[dict[str, int]]:
        """The checksum of every tensor that each worker serves now."""
        return [dict(found) for found in ray.get([actor.weight_checksums.remote() for actor in self.actors])]

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray.kill(actor)
        self.actors = []

    def _new_actor(self) -> Any:
        return RolloutActor.options(**self._options).remote(self._spec)  # pyright: ignore[reportAttributeAccessIssue]

    def _send(self, slots: Sequence[int]) -> tuple[list[int], str]:
        """Send the weights. Returns the workers that did not confirm them, and why."""
        assert self._weights is not None
        reference, version = self._weights
        futures = {slot: self.actors[slot].load_weights.remote(reference, version) for slot in slots}
        expected = self._checksums()
        wrong: dict[int, str] = {}
        for slot, future in futures.items():
            try:
                loaded: LoadedWeights = ray.get(future, timeout=START_SECONDS)
            except (RayActorError, GetTimeoutError) as error:
                self._on_death(slot, exit_of(error) or f"new weights were not loaded within {START_SECONDS:.0f} s")
                self.fresh(slot)
                self.start([slot])
                wrong[slot] = f"worker {slot} died"
                continue
            self._padding_stats.update(loaded.padding_stats)
            names = differing(expected, loaded.checksums)
            if loaded.version != version:
                wrong[slot] = f"worker {slot} serves version {loaded.version}"
            elif names:
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                wrong[slot] = f"worker {slot} holds other values of {', '.join(names[:5])}{more}"
        return list(wrong), "; ".join(wrong.values())

    def _checksums(self) -> Mapping[str, int]:
        """The checksums of what was published; taken once, while the workers load."""
        if self._unchecked is not None:
            self._expected, self._unchecked = checksums(self._unchecked), None
        return self._expected

    def _no_room(self, slot: int) -> str:
        free = {k: v for k, v in ray.available_resources().items() if k in ("CPU", "GPU")}
        return (
            f"worker {slot} has not started within {START_SECONDS:.0f} s. It needs {self._options['num_cpus']} CPU and "
            f"{self._options['num_gpus']:g} GPU; free in the cluster: {free or 'none'}. Lower rl.workers, add nodes, "
            "or wait for the other jobs"
        )


def one_line(error: BaseException) -> str:
    """A library's message as one line, cut short at the front: the cause stands last."""
    text = " ".join(str(error).split())
    return text if len(text) <= 400 else "..." + text[-397:]


def last_error(error: BaseException) -> str:
    """What the process raised in the end, out of Ray's text, which carries its whole traceback."""
    *_, raised = _RAISED.split(str(error))
    return textwrap.shorten(raised, 400, placeholder=" ...")


def exit_of(error: BaseException) -> str:
    """How a worker's process ended, out of Ray's long text."""
    text = " ".join(str(error).split())
    return text.rpartition("actor is dead because ")[2].partition(" Some common causes")[0][:300]


def _gpu_share(workers: int) -> float:
    """GPUs of one worker: one each where there are enough, else an equal part that leaves one part to the learner."""
    gpus = ray.cluster_resources().get("GPU", 0.0)
    return 1.0 if gpus > workers else gpus / (workers + 1)
