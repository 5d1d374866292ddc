"""Requests that reach an engine while it works: put by one thread, taken by the thread that generates."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rollouts.types import Request


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueUpdate:
    """What came since the last look: new requests, and the numbers of those that are no longer wanted."""

    requests: tuple[Request, ...] = ()
    cancelled: tuple[int, ...] = ()


class RequestQueue:
    """A queue that an engine's `stream` reads from. The i-th request ever put has the number i, from 0.

    `RequestQueue(requests)` holds these and is closed. Thread-safe; a reader that waits sleeps.
    """

    def __init__(self, requests: Sequence[Request] | None = None) -> None:
        self._changed = threading.Condition()
        self._requests: list[Request] = list(requests or ())
        self._cancelled: list[int] = []
        self._closed = requests is not None

    def put(self, requests: Iterable[Request]) -> None:
        """Add requests."""
        with self._changed:
            self._requests.extend(requests)
            self._changed.notify()

    def cancel(self, numbers: Iterable[int]) -> None:
        """Ask the engine to end these with what they have; those that have ended are left alone."""
        with self._changed:
            self._cancelled.extend(numbers)
            self._changed.notify()

    def close(self) -> None:
        """Nothing more will come: a stream ends when it has answered what it holds."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def take(self, *, wait: bool) -> QueueUpdate | None:
        """All that is new. With `wait`, sleep until there is something; None if nothing is left and it is closed."""
        with self._changed:
            while wait and not (self._requests or self._cancelled or self._closed):
                self._changed.wait()
            if self._closed and not (self._requests or self._cancelled):
                return None
            news = QueueUpdate(requests=tuple(self._requests), cancelled=tuple(self._cancelled))
            self._requests, self._cancelled = [], []
            return news
