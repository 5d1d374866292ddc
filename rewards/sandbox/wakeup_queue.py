"""Hands jobs from any thread to the dispatcher, and wakes it: it sleeps in a selector."""

from __future__ import annotations

import contextlib
import socket
from collections import deque

from rewards.sandbox.fair_queue import Job


class WakeupQueue:
    """A queue with a socket that becomes readable when a job was added."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self.woken, self._wake = socket.socketpair()
        for end in (self.woken, self._wake):
            end.setblocking(False)

    def put(self, job: Job) -> None:
        """Add a job and wake the reader."""
        self._jobs.append(job)
        self.wake()

    def wake(self) -> None:
        """Wake the reader."""
        with contextlib.suppress(OSError):  # full: it is being woken already; closed: there is nothing to wake
            self._wake.send(b"x")

    def take(self) -> Job | None:
        """Remove and return the oldest job, or None."""
        return self._jobs.popleft() if self._jobs else None

    def drain(self) -> None:
        """Make the socket unreadable again."""
        with contextlib.suppress(BlockingIOError):
            self.woken.recv(4096)

    def close(self) -> None:
        """Close both ends of the socket."""
        self.woken.close()
        self._wake.close()
