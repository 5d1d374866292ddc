"""A pool of worker processes that a hostile response cannot stall.

A worker runs one request at a time. It is killed at the deadline and replaced. This process starts a fork server that
has the imports done, and the fork server forks the workers in milliseconds. None of them outlives this process.
`rewards.sandbox.fair_queue` decides which request is next.

Why not a library: `pebble` and `concurrent.futures` kill late workers too, but a replacement imports sympy again
(seconds, not milliseconds), a long request cannot yield to short ones (behind 12 endless responses on two workers of
`pebble`, a good one waited 12 s), and daemons of a worker outlive a killed owner.
"""

from __future__ import annotations

import itertools
import os
import threading
import weakref
from concurrent.futures import Future
from typing import Any, Protocol

from rewards.sandbox.dispatcher import JobDispatcher, cores, in_dispatcher
from rewards.sandbox.fair_queue import Flow, Job
from rewards.sandbox.worker_handle import WorkerDied, WorkerTimeout
from rewards.sandbox.worker_process import WorkerClass

__all__ = ["Flow", "Worker", "WorkerClass", "WorkerDied", "WorkerPool", "WorkerTimeout", "cores"]

WALL_FACTOR = 4.0  # the wall-clock limit of a verifier's request, in its processor time: the machine may be busy


class Worker(Protocol):
    """What a verifier sees of a pool."""

    def call(self, request: dict[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """The worker's answer to `request`. Raises WorkerTimeout or WorkerDied.

        In a scorer the call may suspend the verifier and run it again from the start: see
        `rewards.sandbox.resumable_worker`.
        """
        ...

    def close(self) -> None:
        """End the processes."""
        ...


class WorkerPool:
    """`workers` child processes, by default one for each core; they start when requests need them.

    `seconds` limits the processor time of a request that names no limit of its own, so that a verdict does not depend
    on what else the machine does; its wall-clock time is limited to `wall_factor` times that, from when a worker gets
    it. `interrupts`: a request may be stopped and started again to let others pass, so it must have no side effects.
    Safe in threads, in asyncio and in Ray actors; a fork of this process gets processes of its own.
    """

    def __init__(
        self,
        kind: WorkerClass | str = "rewards.math.symbolic",
        *,
        workers: int | None = None,
        seconds: float = 1.5,
        start_seconds: float = 120.0,
        wall_factor: float = WALL_FACTOR,
        interrupts: bool = True,
    ) -> None:
        if workers is not None and workers < 1:
            raise ValueError(f"workers = {workers!r}: must be 1 or more, or None for one a core")
        self.seconds = seconds
        self.kind = WorkerClass(module=kind) if isinstance(kind, str) else kind
        self.workers = workers or cores()
        self._wall_factor, self._start_seconds, self._interrupts = wall_factor, start_seconds, interrupts
        self._numbers = itertools.count()
        self._kills = 0
        self._lock = threading.Lock()
        self._dispatcher: JobDispatcher | None = None
        self._finalizer: weakref.finalize[..., Any] | None = None
        _POOLS.add(self)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now."""
        dispatcher = self._dispatcher
        return dispatcher.pids if dispatcher is not None else []

    @property
    def fork_server_pid(self) -> int | None:
        """Process id of the parent of the workers, None where none runs."""
        dispatcher = self._dispatcher
        return dispatcher.fork_server_pid if dispatcher is not None else None

    @property
    def kills(self) -> int:
        """Workers that were killed at a deadline so far, for metrics."""
        dispatcher = self._dispatcher
        return self._kills + (dispatcher.kills if dispatcher is not None else 0)

    def submit(
        self, request: dict[str, Any], *, seconds: float | None = None, flow: Flow | None = None
    ) -> Future[dict[str, Any]]:
        """Send `request` and return a future of `{"answer": ..., "seconds": ...}`, WorkerTimeout or WorkerDied.

        Requests of one `flow` were submitted together, and wait together where they are costly. Never blocks.
        """
        allowed = self.seconds if seconds is None else seconds
        job = Job(
            request=request,
            size=sum(len(value) for value in request.values() if isinstance(value, str)),
            seconds=allowed * self._wall_factor,
            cpu_seconds=allowed,
            flow=flow or Flow(),
            number=next(self._numbers),
        )
        with self._lock:
            if self._dispatcher is None or not self._dispatcher.is_alive():
                self._start()
            assert self._dispatcher is not None
            self._dispatcher.submit(job)
        return job.future

    def call(self, request: dict[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """Send `request`, wait, and return the answer. Raises WorkerTimeout or WorkerDied."""
        if in_dispatcher():
            raise RuntimeError("a callback of a future may not wait for a pool: it would wait for itself")
        return self.submit(request, seconds=seconds).result()["answer"]

    def close(self) -> None:
        """End the processes and wait for them; what is under way gets WorkerDied. A later call starts new ones."""
        with self._lock:
            dispatcher, self._dispatcher = self._dispatcher, None
        if dispatcher is not None:
            if self._finalizer is not None:
                self._finalizer.detach()
            dispatcher.stop()
            self._kills += dispatcher.kills

    def _start(self) -> None:
        self._dispatcher = JobDispatcher(
            self.kind, workers=self.workers, start_seconds=self._start_seconds, interrupts=self._interrupts
        )
        self._finalizer = weakref.finalize(self, JobDispatcher.stop, self._dispatcher)
        self._dispatcher.start()

    def _after_fork(self) -> None:
        """In a fork: the processes are the parent's, and its locks may be held by threads that are not here."""
        self._lock = threading.Lock()
        dispatcher, self._dispatcher = self._dispatcher, None
        if self._finalizer is not None:
            self._finalizer.detach()
        if dispatcher is not None:
            dispatcher.forget()


_POOLS: weakref.WeakSet[WorkerPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_POOLS):
        pool._after_fork()


os.register_at_fork(after_in_child=_after_fork)
