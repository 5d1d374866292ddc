"""Threads for what waits: an executor that starts when it is used, and again in a fork of this process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Threads:
    """At most `most` threads; a fork has none of its parent's, so it gets threads of its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None
        self._owner = os.getpid()

    def submit(self, call: Callable[[], None]) -> None:
        """Run `call`, which must not raise, in one of the threads."""
        if os.getpid() != self._owner:
            self._owner, self._lock, self._executor = os.getpid(), threading.Lock(), None
        with self._lock:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(self._most, thread_name_prefix="thinkvl-reward")
            self._executor.submit(call)

    def close(self) -> None:
        """Let the threads end, without waiting for what they still do."""
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
