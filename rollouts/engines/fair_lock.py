"""Decides who may use an engine: the thread that steps it, or the one that loads weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class FairLock:
    """A lock that a waiting thread gets before the thread that held it last. It is not reentrant."""

    def __init__(self) -> None:
        self._next, self._lock = Lock(), Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the duration of a `with` block."""
        with self._next:
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
