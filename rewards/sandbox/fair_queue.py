"""Fair order of jobs: by what their flow has cost so far, so nothing waits behind a burst of hostile responses.

A flow is what was submitted together, such as one batch. A cheap flow goes before a costly one. Within a flow, jobs
that have not run go before interrupted ones, and small ones before large ones. Nothing here knows about processes.
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
    """Identifies the jobs that were submitted together. It holds nothing."""


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
class _FlowJobs:
    """One flow's waiting jobs, and what its jobs have cost."""

    waiting: list[tuple[int, int, int, Job]] = field(default_factory=list)  # a heap
    seconds: float = 0.0
    runs: int = 0
    version: int = 0  # entries of the queue's heap that have another are out of date

    def rank(self) -> Rank:
        """The rank of the first waiting job; the queue takes the lowest next."""
        return (self.mean, *self.waiting[0][:3])

    @property
    def mean(self) -> float:
        return self.seconds / self.runs if self.runs else 0.0


class FairQueue:
    """Jobs that wait for a worker. Every operation takes logarithmic time."""

    def __init__(self) -> None:
        self._flows: weakref.WeakKeyDictionary[Flow, _FlowJobs] = weakref.WeakKeyDictionary()
        self._heap: list[tuple[Rank, int, int, _FlowJobs]] = []  # rank, version, a tie-breaker
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, job: Job) -> None:
        """Add a new or interrupted job."""
        jobs = self._jobs_of(job.flow)
        heapq.heappush(jobs.waiting, (*_place(job), job))
        self._size += 1
        self._renew(jobs)

    def pop(self) -> Job | None:
        """Take the next job."""
        jobs = self._first()
        if jobs is None:
            return None
        job = heapq.heappop(jobs.waiting)[-1]
        self._size -= 1
        self._renew(jobs)
        return job

    def charge(self, job: Job, seconds: float) -> None:
        """Add what a run of `job`, whole or interrupted, has cost to its flow."""
        jobs = self._jobs_of(job.flow)
        jobs.seconds += seconds
        jobs.runs += job.interruptions == 0
        self._renew(jobs)

    def interrupts(self, running: Job) -> bool:
        """True if `running`, whose time slice is over, should yield to a waiting job."""
        jobs = self._first()
        if jobs is None or running.interruptions >= MOST_INTERRUPTIONS:
            return False
        return jobs.rank() < (self._jobs_of(running.flow).mean, 1, 0, 0)

    def _jobs_of(self, flow: Flow) -> _FlowJobs:
        return self._flows.setdefault(flow, _FlowJobs())

    def _renew(self, jobs: _FlowJobs) -> None:
        jobs.version += 1
        if jobs.waiting:
            heapq.heappush(self._heap, (jobs.rank(), jobs.version, id(jobs), jobs))

    def _first(self) -> _FlowJobs | None:
        while self._heap:
            _, version, _, jobs = self._heap[0]
            if version == jobs.version and jobs.waiting:
                return jobs
            heapq.heappop(self._heap)
        return None


def _place(job: Job) -> tuple[int, int, int]:
    """A job's place in its flow: not yet run first, then small ones (by powers of two), then by order of arrival."""
    return (min(job.interruptions, 1), job.size.bit_length(), job.number)
