"""The thread behind a pool, the only one that touches workers: hands them jobs, kills the late ones, replaces them."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import threading
import time

from rewards.sandbox.flow_queue import Job, Queue
from rewards.sandbox.fork_server import ENDED, FAILED, KILL, MESSAGE, READY, SPAWN
from rewards.sandbox.fork_server_client import NurseryProcess
from rewards.sandbox.job_queue import JobQueue
from rewards.sandbox.worker import WorkerDied, WorkerHandle, WorkerTimeout, told
from rewards.sandbox.worker_main import WorkerClass

_KILL_SECONDS = 5.0  # a killed worker is gone by then, or something is wrong with the nursery
_MOST_RESTARTS = 8  # times that a job is begun anew, because the nursery died or it made place


class Dispatcher(threading.Thread):
    """Owns the nursery and the workers of one pool. Its public methods may be called from any thread."""

    def __init__(self, kind: WorkerClass, *, workers: int, start_seconds: float, interrupts: bool) -> None:
        super().__init__(name="thinkvl-reward-pool", daemon=True)
        self.kills = 0
        self._kind, self._most, self._start_seconds, self._interrupts = kind, workers, start_seconds, interrupts
        self._inbox = JobQueue()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._inbox.woken, selectors.EVENT_READ, lambda _: self._inbox.calm())
        self._queue = Queue()
        self._numbers = itertools.count()
        self._workers: dict[int, WorkerHandle] = {}
        self._nursery: NurseryProcess | None = None
        self._nursery_until = 0.0  # when its start is overdue; infinite once it is ready
        self._looked = 0.0  # when the deadlines were last looked at

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [w.pid for w in list(self._workers.values()) if w.pid and not w.dying]

    @property
    def nursery_pid(self) -> int | None:
        """Process id of the nursery, None where none runs."""
        nursery = self._nursery
        return nursery.pid if nursery is not None else None

    def submit(self, job: Job) -> None:
        """Let `job` run some time; its future gets the answer, WorkerTimeout or WorkerDied."""
        self._inbox.put(job)

    def stop(self) -> None:
        """Kill every process and end the thread; jobs that wait get WorkerDied. Returns once all are gone."""
        self._closing = True
        self._inbox.wake()
        if threading.current_thread() is not self:
            self.join()

    def forget(self) -> None:
        """In a fork of the owner: drop the descriptors, so that the workers see the owner's end and not the fork's."""
        self._selector.close()
        self._inbox.close()
        for worker in self._workers.values():
            worker.channel.close()
        if self._nursery is not None:
            self._nursery.forget()

    def run(self) -> None:
        """The loop; `start` calls it."""
        reason = "the pool was closed"
        try:
            while not self._closing:
                timeout = max(0.0, self._next_time() - time.monotonic())
                for key, events in self._selector.select(None if timeout == float("inf") else timeout):
                    key.data(events)
                self._looked = time.monotonic()
                self._expire(self._looked)
                self._assign()
        except BaseException:
            reason = "the pool failed"  # a mistake of ours, which must not leave anybody waiting
            raise
        finally:
            self._closing = True
            self._end_nursery(reason)
            self._selector.close()
            self._inbox.close()

    # Time

    def _next_time(self) -> float:
        times = [self._nursery_until if self._nursery is not None else float("inf")]
        for worker in self._workers.values():
            times.append(worker.until)
            if worker.job is not None and self._interrupts and len(self._queue) and worker.slice_ends > self._looked:
                times.append(worker.slice_ends)  # one that is over already is looked at whenever anything happens
        return min(times)

    def _expire(self, now: float) -> None:
        if self._nursery is not None and now >= self._nursery_until:
            return self._end_nursery("the worker did not start in time")
        for worker in list(self._workers.values()):
            if now >= worker.until:
                if worker.dying:
                    return self._end_nursery()  # it does not obey
                job = worker.job
                late = WorkerTimeout(f"no answer within {job.seconds:g} s") if job else None
                self._kill(worker, late or WorkerDied(f"a worker did not start within {self._start_seconds:g} s"))
            elif (
                self._interrupts
                and worker.job is not None
                and not worker.dying
                and not self._has_room()
                and worker.slice_is_over(now)
                and self._queue.interrupts(worker.job)
            ):
                self._kill(worker, None)
        return None

    # Jobs

    def _has_room(self) -> bool:
        alive = [worker for worker in self._workers.values() if not worker.dying]
        return len(alive) < self._most or any(worker.idle for worker in alive)

    def _assign(self) -> None:
        while (new := self._inbox.take()) is not None:
            self._queue.put(new)
        alive = [worker for worker in self._workers.values() if not worker.dying]
        idle = [worker for worker in alive if worker.idle]
        while idle and (job := self._queue.pop()) is not None:
            if job.future.running() or job.future.set_running_or_notify_cancel():
                worker = idle.pop()
                worker.begin(job)
                self._watch(worker)
        starting = sum(not worker.pid for worker in alive)
        for _ in range(min(len(self._queue) - starting, self._most - len(alive))):
            self._spawn()

    def _watch(self, worker: WorkerHandle) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.flush() else 0)
        self._selector.modify(worker.channel, events, lambda events: self._on_worker(worker, events))

    def _on_worker(self, worker: WorkerHandle, events: int) -> None:
        if events & selectors.EVENT_WRITE and not worker.dying:
            self._watch(worker)
        if events & selectors.EVENT_READ and not worker.dying:
            self._receive(worker)

    def _receive(self, worker: WorkerHandle) -> None:
        try:
            messages, ended = worker.read()
            for message in messages:
                self._on_message(worker, message)
        except (ValueError, KeyError, TypeError) as error:
            return self._kill(worker, WorkerDied(f"the worker sent garbage: {type(error).__name__}"))
        if ended and not worker.dying:
            self._mark_dying(worker, WorkerDied("the worker ended"))
        return None

    def _on_message(self, worker: WorkerHandle, message: dict[str, object]) -> None:
        if not worker.pid:
            if "failed" in message:
                self._fail_all(str(message["failed"]))
                self._kill(worker, None)
            else:
                worker.pid, worker.until = int(str(message["ready"])), float("inf")
            return
        ends, answer = message["ends"], message["answer"] if "error" not in message else None
        cost = worker.cost()
        job, seconds = worker.end_job()
        self._queue.charge(job, cost)
        if ends:
            self._kill(worker, None)
        if "error" in message:
            job.future.set_exception(WorkerDied(str(message["error"])))
        else:
            job.future.set_result({"answer": answer, "seconds": seconds})

    def _fail_all(self, reason: str) -> None:
        while (new := self._inbox.take()) is not None:
            self._queue.put(new)
        while (job := self._queue.pop()) is not None:
            if job.future.running() or job.future.set_running_or_notify_cancel():
                job.future.set_exception(WorkerDied(reason))

    # Processes

    def _spawn(self) -> None:
        overdue = time.monotonic() + self._start_seconds
        try:
            if self._nursery is None:
                self._nursery, self._nursery_until = NurseryProcess(self._kind), overdue
                self._selector.register(self._nursery.control, selectors.EVENT_READ, self._on_nursery)
            ours, theirs = socket.socketpair()
        except OSError as error:  # no more processes or descriptors
            return self._fail_all(f"no worker can be started: {error}")
        ours.setblocking(False)
        worker = WorkerHandle(number=next(self._numbers), channel=ours, until=overdue)
        self._workers[worker.number] = worker
        self._selector.register(ours, selectors.EVENT_READ, lambda events: self._on_worker(worker, events))
        with theirs, contextlib.suppress(OSError):  # a nursery that has ended is seen by the loop
            self._nursery.send(MESSAGE.pack(SPAWN, worker.number, 0), theirs.fileno())
        return None

    def _kill(self, worker: WorkerHandle, verdict: Exception | None) -> None:
        if worker.dying:
            return
        self._mark_dying(worker, verdict)
        if self._nursery is not None:
            with contextlib.suppress(OSError):
                self._nursery.send(MESSAGE.pack(KILL, worker.number, 0))

    def _mark_dying(self, worker: WorkerHandle, verdict: Exception | None) -> None:
        if worker.job is not None:
            self._queue.charge(worker.job, worker.cost())
        self._selector.unregister(worker.channel)
        worker.dying, worker.verdict, worker.until = True, verdict, time.monotonic() + _KILL_SECONDS

    def _on_nursery(self, _: int) -> None:
        nursery = self._nursery
        assert nursery is not None
        try:
            kind, number, value = MESSAGE.unpack(nursery.receive(MESSAGE.size))
            text = nursery.receive(value).decode("utf-8", "replace") if kind == FAILED else ""
        except OSError:
            self._end_nursery("the worker ended while it started" if self._nursery_until < float("inf") else "")
            return
        if kind == READY:
            self._nursery_until = float("inf")
        elif kind == FAILED:
            self._end_nursery(f"the worker did not start: {text}")
        elif kind == ENDED and (worker := self._workers.get(number)) is not None:
            if not worker.dying:
                self._receive(worker)  # its last words
            if not worker.dying:
                self._mark_dying(worker, WorkerDied("the worker ended"))
            self._bury(worker, value)

    def _bury(self, worker: WorkerHandle, status: int) -> None:
        """The process is gone: answer its job, or put it back."""
        self._workers.pop(worker.number, None)
        worker.channel.close()
        job, worker.job = worker.job, None
        if job is None:
            if not worker.pid and worker.verdict is not None:
                self._fail_all(f"{worker.verdict}: status {status}")
        elif worker.verdict is None:
            job.interruptions += 1
            self._queue.put(job)
        else:
            error = told(worker.verdict, status, job)
            self.kills += isinstance(error, WorkerTimeout)
            job.future.set_exception(error)

    def _end_nursery(self, reason: str = "") -> None:
        """End what is left of it. What waits gets `reason`; what runs is put back, but not again and again."""
        if reason:
            self._fail_all(reason)
        nursery, self._nursery = self._nursery, None
        if nursery is not None:
            self._selector.unregister(nursery.control)
            nursery.end()
        for worker in list(self._workers.values()):
            if not worker.dying:
                lost = worker.job is not None and (self._closing or worker.job.interruptions >= _MOST_RESTARTS)
                self._mark_dying(worker, WorkerDied("the worker was ended with its pool") if lost else None)
            self._bury(worker, 0)


def in_dispatcher() -> bool:
    """True in a callback of a future: waiting there would wait for ever."""
    return isinstance(threading.current_thread(), Dispatcher)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
