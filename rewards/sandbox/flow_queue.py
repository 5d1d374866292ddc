"""Who is next: jobs wait by what their flow has cost so far, so that nothing waits behind a burst of hostile answers.

A flow is what was submitted together, such as one batch. A cheap flow goes before a costly one; in a flow, jobs that
have not run go before those that were interrupted, and small ones before large ones. Nothing here knows of processes.
"""

from __future__ import annotations

import heapq
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

MOST_INTERRUPTIONS = 3  # after so many a job runs to its end, so that each one ends some time

Rank = tuple[float, int, int, int]


class Flow:
    """What was submitted together; a bare identity."""


@dataclass(eq=False, slots=True, kw_only=True)
class Job:
    """One request, until it is answered."""

    request: dict[str, Any]
    size: int  # of the request, in characters
    seconds: float  # wall-clock limit
    cpu_seconds: float
    flow: Flow
    number: int  # order of arrival
    future: Future[dict[str, Any]] = field(default_factory=Future)
    interruptions: int = 0


@dataclass(eq=False, slots=True)
class _Lane:
    """One flow's waiting jobs, and what its jobs have cost."""

    waiting: list[tuple[int, int, int, Job]] = field(default_factory=list)  # a heap
    seconds: float = 0.0
    runs: int = 0
    version: int = 0  # entries of the queue's heap that have another are out of date

    def rank(self) -> Rank:
        """How soon the lane's first job is due; the least is next."""
        return (self.mean, *self.waiting[0][:3])

    @property
    def mean(self) -> float:
        return self.seconds / self.runs if self.runs else 0.0


class Queue:
    """Jobs that wait for a worker. Every operation takes logarithmic time."""

    def __init__(self) -> None:
        self._lanes: weakref.WeakKeyDictionary[Flow, _Lane] = weakref.WeakKeyDictionary()
        self._heap: list[tuple[Rank, int, int, _Lane]] = []  # rank, version, a tie-breaker
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, job: Job) -> None:
        """Let `job` wait; again, where it was interrupted."""
        lane = self._lane(job.flow)
        heapq.heappush(lane.waiting, (*_place(job), job))
        self._size += 1
        self._renew(lane)

    def pop(self) -> Job | None:
        """Take the next job."""
        lane = self._first()
        if lane is None:
            return None
        job = heapq.heappop(lane.waiting)[-1]
        self._size -= 1
        self._renew(lane)
        return job

    def charge(self, job: Job, seconds: float) -> None:
        """Tell what a run of `job`, whole or interrupted, has cost."""
        lane = self._lane(job.flow)
        lane.seconds += seconds
        lane.runs += job.interruptions == 0
        self._renew(lane)

    def interrupts(self, running: Job) -> bool:
        """True where `running`, whose time slice is over, should make place for one that waits."""
        lane = self._first()
        if lane is None or running.interruptions >= MOST_INTERRUPTIONS:
            return False
        return lane.rank() < (self._lane(running.flow).mean, 1, 0, 0)

    def _lane(self, flow: Flow) -> _Lane:
        return self._lanes.setdefault(flow, _Lane())

    def _renew(self, lane: _Lane) -> None:
        lane.version += 1
        if lane.waiting:
            heapq.heappush(self._heap, (lane.rank(), lane.version, id(lane), lane))

    def _first(self) -> _Lane | None:
        while self._heap:
            _, version, _, lane = self._heap[0]
            if version == lane.version and lane.waiting:
                return lane
            heapq.heappop(self._heap)
        return None


def _place(job: Job) -> tuple[int, int, int]:
    """A job's place in its lane: not yet run first, then small ones (within a factor of two), then as they came."""
    return (min(job.interruptions, 1), job.size.bit_length(), job.number)
