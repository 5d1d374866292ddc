"""One worker process as its owner sees it: its socket, the job it has, and when it is overdue."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from rewards.sandbox.fair_queue import Job
from rewards.sandbox.worker_process import frame, unframe

SLICE_SECONDS = 0.2  # of the processor; then a job makes place, should one wait that is likely to be short

_MOST_REPLY = 64 << 20  # bytes
_CPU_SIGNALS = (-signal.SIGPROF, -signal.SIGXCPU)


class WorkerTimeout(Exception):
    """The request was not answered by its deadline; the worker was killed."""


class WorkerDied(Exception):
    """The worker ended, or could not start, while it held the request."""


@dataclass(eq=False, slots=True, kw_only=True)
class WorkerHandle:
    """The state of one worker. `until`: when its start, its job or its death is overdue."""

    number: int
    channel: socket.socket  # does not block
    until: float
    pid: int = 0  # 0: it is starting
    job: Job | None = None
    dying: bool = False
    verdict: Exception | None = None  # what the job gets once the process is gone; None: it is put back
    slice_ends: float = 0.0  # when to look whether the job has used its slice up
    _began: float = 0.0
    _used: float | None = None  # processor seconds of the process when its job began
    _incoming: bytearray = field(default_factory=bytearray)
    _outgoing: bytes = b""

    @property
    def idle(self) -> bool:
        """True where it can take a job."""
        return self.pid != 0 and self.job is None and not self.dying

    def begin(self, job: Job) -> None:
        """Take `job`; `flush` sends it."""
        self.job, self._began, self._used = job, time.monotonic(), process_seconds(self.pid)
        self.until, self.slice_ends = self._began + job.seconds, self._began + SLICE_SECONDS
        self._outgoing = frame({**job.request, "cpu_seconds": job.cpu_seconds})

    def flush(self) -> bool:
        """Send what the socket takes; True where a part is left."""
        with contextlib.suppress(OSError):  # full, or the process has ended, which is seen when reading
            self._outgoing = self._outgoing[self.channel.send(self._outgoing) :]
        return bool(self._outgoing)

    def read(self) -> tuple[list[Any], bool]:
        """The messages that are complete, and whether the process has hung up. Raises ValueError for garbage."""
        ended = False
        try:
            while data := self.channel.recv(1 << 20):
                self._incoming += data
                if len(self._incoming) > 2 * _MOST_REPLY:
                    raise ValueError("a flood of bytes")
            ended = True
        except BlockingIOError:
            pass
        except OSError:
            ended = True
        messages = []
        while (message := unframe(self._incoming, _MOST_REPLY)) is not None:
            messages.append(message)
        return messages, ended

    def end_job(self) -> tuple[Job, float]:
        """The job that was answered, no longer this worker's, and its seconds."""
        if self.job is None:
            raise ValueError("a reply without a request")
        job, self.job, self.until = self.job, None, float("inf")
        return job, time.monotonic() - self._began

    def cost(self) -> float:
        """Seconds that the job has cost: of the processor, for on a busy machine an honest answer takes long too."""
        now = process_seconds(self.pid)
        return time.monotonic() - self._began if now is None or self._used is None else now - self._used

    def slice_is_over(self, now: float) -> bool:
        """True where the job has had its slice; else `slice_ends` says when to look again."""
        left = SLICE_SECONDS - self.cost() if now >= self.slice_ends else SLICE_SECONDS
        if now >= self.slice_ends and left > 0:
            self.slice_ends = now + max(left, 0.01)
        return left <= 0


def failure_of(verdict: Exception, status: int, job: Job) -> Exception:
    """The error of a job whose worker ended with `status`; the processor limit ends a worker by a signal."""
    if status in _CPU_SIGNALS:
        return WorkerTimeout(f"no answer within {job.cpu_seconds:g} s of processor time")
    if not isinstance(verdict, WorkerDied) or not status:
        return verdict
    how = f"exit status {status}"
    if status < 0:
        with contextlib.suppress(ValueError):
            how = f"killed by {signal.Signals(-status).name}"
    return WorkerDied(f"{verdict} ({how})")


def process_seconds(pid: int) -> float | None:
    """Processor seconds of a process; None where it has ended, or where the system is not Linux."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return time.clock_gettime((~pid << 3) | 2)  # the kernel's number for the clock of process `pid`
    return None
