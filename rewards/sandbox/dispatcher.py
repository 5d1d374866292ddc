"""The thread behind a pool. It alone touches workers: it gives them jobs, kills late ones and replaces them."""

from __future__ import annotations

import contextlib
import itertools
import os
import selectors
import socket
import threading
import time

from rewards.sandbox.fair_queue import FairQueue, Job
from rewards.sandbox.fork_server import ENDED, FAILED, KILL, MESSAGE, READY, SPAWN
from rewards.sandbox.fork_server_client import ForkServerProcess
from rewards.sandbox.wakeup_queue import WakeupQueue
from rewards.sandbox.worker_handle import WorkerDied, WorkerHandle, WorkerTimeout, failure_of
from rewards.sandbox.worker_process import WorkerClass

_KILL_SECONDS = 5.0  # a killed worker has ended by then, or the fork server hangs
_MOST_RESTARTS = 8  # of a job, because the fork server died or the job yielded to others


class JobDispatcher(threading.Thread):
    """Owns the fork server and the workers of one pool. Its public methods may be called from any thread."""

    def __init__(self, kind: WorkerClass, *, workers: int, start_seconds: float, interrupts: bool) -> None:
        super().__init__(name="thinkvl-reward-pool", daemon=True)
        self.kills = 0
        self._kind, self._most, self._start_seconds, self._interrupts = kind, workers, start_seconds, interrupts
        self._new_jobs = WakeupQueue()
        self._closing = False
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._new_jobs.woken, selectors.EVENT_READ, lambda _: self._new_jobs.drain())
        self._queue = FairQueue()
        self._numbers = itertools.count()
        self._workers: dict[int, WorkerHandle] = {}
        self._fork_server: ForkServerProcess | None = None
        self._fork_server_until = 0.0  # deadline of its start; infinite once it is ready
        self._checked = 0.0  # when deadlines were last checked

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run."""
        return [w.pid for w in list(self._workers.values()) if w.pid and not w.dying]

    @property
    def fork_server_pid(self) -> int | None:
        """Process id of the fork server, None where none runs."""
        fork_server = self._fork_server
        return fork_server.pid if fork_server is not None else None

    def submit(self, job: Job) -> None:
        """Queue `job`; its future gets the answer, WorkerTimeout or WorkerDied."""
        self._new_jobs.put(job)

    def stop(self) -> None:
        """Kill every process and end the thread. Waiting jobs get WorkerDied. Returns once all processes have ended."""
        self._closing = True
        self._new_jobs.wake()
        if threading.current_thread() is not self:
            self.join()

    def forget(self) -> None:
        """In a fork of the owner: drop the descriptors, so that the workers see the owner's end and not the fork's."""
        self._selector.close()
        self._new_jobs.close()
        for worker in self._workers.values():
            worker.channel.close()
        if self._fork_server is not None:
            self._fork_server.forget()

    def run(self) -> None:
        """The loop; `start` calls it."""
        reason = "the pool was closed"
        try:
            while not self._closing:
                timeout = max(0.0, self._next_time() - time.monotonic())
                for key, events in self._selector.select(None if timeout == float("inf") else timeout):
                    key.data(events)
                self._checked = time.monotonic()
                self._expire(self._checked)
                self._assign()
        except BaseException:
            reason = "the pool failed"  # a programmer's error must leave no caller waiting
            raise
        finally:
            self._closing = True
            self._end_fork_server(reason)
            self._selector.close()
            self._new_jobs.close()

    # Time

    def _next_time(self) -> float:
        times = [self._fork_server_until if self._fork_server is not None else float("inf")]
        for worker in self._workers.values():
            times.append(worker.until)
            if worker.job is not None and self._interrupts and len(self._queue) and worker.slice_ends > self._checked:
                times.append(worker.slice_ends)  # one that is over is checked at every event
        return min(times)

    def _expire(self, now: float) -> None:
        if self._fork_server is not None and now >= self._fork_server_until:
            return self._end_fork_server("the worker did not start in time")
        for worker in list(self._workers.values()):
            if now >= worker.until:
                if worker.dying:
                    return self._end_fork_server()  # the fork server did not kill it
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
        while (new := self._new_jobs.take()) is not None:
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
        while (new := self._new_jobs.take()) is not None:
            self._queue.put(new)
        while (job := self._queue.pop()) is not None:
            if job.future.running() or job.future.set_running_or_notify_cancel():
                job.future.set_exception(WorkerDied(reason))

    # Processes

    def _spawn(self) -> None:
        overdue = time.monotonic() + self._start_seconds
        try:
            if self._fork_server is None:
                self._fork_server, self._fork_server_until = ForkServerProcess(self._kind), overdue
                self._selector.register(self._fork_server.control, selectors.EVENT_READ, self._on_fork_server)
            ours, theirs = socket.socketpair()
        except OSError as error:  # no more processes or descriptors
            return self._fail_all(f"no worker can be started: {error}")
        ours.setblocking(False)
        worker = WorkerHandle(number=next(self._numbers), channel=ours, until=overdue)
        self._workers[worker.number] = worker
        self._selector.register(ours, selectors.EVENT_READ, lambda events: self._on_worker(worker, events))
        with theirs, contextlib.suppress(OSError):  # a fork server that has ended is seen by the loop
            self._fork_server.send(MESSAGE.pack(SPAWN, worker.number, 0), theirs.fileno())
        return None

    def _kill(self, worker: WorkerHandle, verdict: Exception | None) -> None:
        if worker.dying:
            return
        self._mark_dying(worker, verdict)
        if self._fork_server is not None:
            with contextlib.suppress(OSError):
                self._fork_server.send(MESSAGE.pack(KILL, worker.number, 0))

    def _mark_dying(self, worker: WorkerHandle, verdict: Exception | None) -> None:
        if worker.job is not None:
            self._queue.charge(worker.job, worker.cost())
        self._selector.unregister(worker.channel)
        worker.dying, worker.verdict, worker.until = True, verdict, time.monotonic() + _KILL_SECONDS

    def _on_fork_server(self, _: int) -> None:
        fork_server = self._fork_server
        assert fork_server is not None
        try:
            kind, number, value = MESSAGE.unpack(fork_server.receive(MESSAGE.size))
            text = fork_server.receive(value).decode("utf-8", "replace") if kind == FAILED else ""
        except OSError:
            self._end_fork_server("the worker ended while it started" if self._fork_server_until < float("inf") else "")
            return
        if kind == READY:
            self._fork_server_until = float("inf")
        elif kind == FAILED:
            self._end_fork_server(f"the worker did not start: {text}")
        elif kind == ENDED and (worker := self._workers.get(number)) is not None:
            if not worker.dying:
                self._receive(worker)  # what it sent before it ended
            if not worker.dying:
                self._mark_dying(worker, WorkerDied("the worker ended"))
            self._remove(worker, value)

    def _remove(self, worker: WorkerHandle, status: int) -> None:
        """Forget a worker whose process has ended; answer its job, or queue the job again."""
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
            error = failure_of(worker.verdict, status, job)
            self.kills += isinstance(error, WorkerTimeout)
            job.future.set_exception(error)

    def _end_fork_server(self, reason: str = "") -> None:
        """End the fork server and its workers. With `reason`, waiting jobs fail; running jobs are queued again."""
        if reason:
            self._fail_all(reason)
        fork_server, self._fork_server = self._fork_server, None
        if fork_server is not None:
            self._selector.unregister(fork_server.control)
            fork_server.end()
        for worker in list(self._workers.values()):
            if not worker.dying:
                lost = worker.job is not None and (self._closing or worker.job.interruptions >= _MOST_RESTARTS)
                self._mark_dying(worker, WorkerDied("the worker was ended with its pool") if lost else None)
            self._remove(worker, 0)


def in_dispatcher() -> bool:
    """True in a callback of a future, where waiting for the pool would deadlock."""
    return isinstance(threading.current_thread(), JobDispatcher)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
