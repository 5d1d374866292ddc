"""Who may touch an engine's model now: the thread that steps, or the one that brings new weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class FairLock:
    """A lock that goes from hand to hand: a thread that waits gets it before the one that had it last."""

    def __init__(self) -> None:
        self._next, self._lock = Lock(), Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the turn."""
        with self._next:
            self._lock.acquire()
        try:
            yield
        finally:
            self._lock.release()
