"""The dispatcher of a synchronous run: submitted requests become one batch when somebody waits for them.

`RequestDispatcher` keeps the workers busy beside the learner. This class has the same methods, and differs in one
point: it calls `generate` once for all requests. If a worker dies in that call, the pool repeats the worker's whole
share on a new one, in the same batch, so that the completions are the same to the last bit. A stream cannot promise
that, because the completions that arrived before the death are not generated again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from configs.rl import SamplingConfig
from rollouts.sources.rollout_pipeline import Generate
from rollouts.types import Completion, Request


class Dispatcher(Protocol):
    """Gives requests to engines and calls `on_answer(key, completions)` for each, under `lock`."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while `on_answer` runs, and by those who read or change what it changes."""
        ...

    def ask(self, requests: Mapping[int, Request]) -> None:
        """Queue requests by key, in order."""
        ...

    def cancel(self, keys: Iterable[int]) -> None:
        """End these requests with the tokens that they have."""
        ...

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Return when `ready()`, which is looked at under `lock` after each completed request."""
        ...

    def depths(self) -> tuple[int, int]:
        """Number of requests that wait, and of those that engines work on."""
        ...

    def close(self) -> None:
        """End what runs."""
        ...


class BatchDispatcher:
    """Generates all queued requests in one call of `generate`, in the caller's thread."""

    def __init__(
        self, generate: Generate, sampling: SamplingConfig, *, on_answer: Callable[[int, list[Completion]], None]
    ) -> None:
        self.lock = contextlib.nullcontext()
        self._generate, self._sampling, self._on_answer = generate, sampling, on_answer
        self._waiting: dict[int, Request] = {}

    def ask(self, requests: Mapping[int, Request]) -> None:
        """Queue requests by key, in order."""
        self._waiting.update(requests)

    def cancel(self, keys: Iterable[int]) -> None:
        """Take requests out of the queue; they finish without completions."""
        for key in keys:
            del self._waiting[key]
            self._on_answer(key, [])

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Generate what is queued; `ready()` must hold then."""
        requests, self._waiting = self._waiting, {}
        if requests:
            found = self._generate(list(requests.values()), self._sampling)
            for key, completions in zip(requests, found, strict=True):
                self._on_answer(key, completions)
        assert ready(), "a synchronous source waits for requests that it did not submit"

    def depths(self) -> tuple[int, int]:
        """Number of queued requests; none is under way between two calls."""
        return len(self._waiting), 0

    def close(self) -> None:
        """Nothing runs between two calls."""
