"""Lets one thread judge many responses at once: a verifier that needs a worker is left, and run again with the answer.

Verifiers are plain functions that call `worker.call` where strings and exact numbers do not settle a case. Waiting
there would need a thread for each response. Instead the call leaves the verifier, the request goes to the pool, and
with the answer at hand the verifier runs once more from the start: its fast path is deterministic and costs little.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rewards.sandbox.pool import Flow, WorkerPool
from rewards.types import Verdict

_MOST_CROSSINGS = 20  # of one verification


class _Crossing(BaseException):
    """A verifier needs `request` answered; no error, so no `except Exception` of a verifier may catch it."""

    def __init__(self, request: dict[str, Any], seconds: float | None) -> None:
        self.request, self.seconds = request, seconds


class Crossings:
    """What verifiers get as their worker. Outside of `run` it is the pool."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._local = threading.local()

    def call(self, request: dict[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """The answer to `request`: from the record of an earlier run of the verifier, or from the pool."""
        record: list[dict[str, Any] | BaseException] | None = getattr(self._local, "record", None)
        if record is None:
            return self._pool.call(request, seconds=seconds)
        if not record:
            raise _Crossing(request, seconds)
        found = record.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """End the pool's processes."""
        self._pool.close()

    def run(self, judge: Callable[[], Verdict], done: Callable[[Verdict | Exception, float], None], flow: Flow) -> None:
        """Call `judge`, and then `done` with its verdict and the seconds of workers, here or in another thread."""
        self._run(judge, done, flow, [], 0.0)

    def _run(
        self,
        judge: Callable[[], Verdict],
        done: Callable[[Verdict | Exception, float], None],
        flow: Flow,
        record: list[dict[str, Any] | BaseException],
        seconds: float,
    ) -> None:
        self._local.record = list(record)
        try:
            verdict: Verdict | Exception = judge()
        except _Crossing as crossing:
            if len(record) < _MOST_CROSSINGS:
                future = self._pool.submit(crossing.request, seconds=crossing.seconds, flow=flow)
                future.add_done_callback(lambda answered: self._again(judge, done, flow, record, seconds, answered))
                return
            verdict = RuntimeError(f"a verifier asked its worker more than {_MOST_CROSSINGS} times")
        except Exception as error:  # a mistake of ours, to be raised where the verdict is waited for
            verdict = error
        finally:
            self._local.record = None
        done(verdict, seconds)

    def _again(
        self,
        judge: Callable[[], Verdict],
        done: Callable[[Verdict | Exception, float], None],
        flow: Flow,
        record: list[dict[str, Any] | BaseException],
        seconds: float,
        answered: Future[dict[str, Any]],
    ) -> None:
        error = answered.exception()
        if error is not None:
            return self._run(judge, done, flow, [*record, error], seconds)
        result = answered.result()
        return self._run(judge, done, flow, [*record, result["answer"]], seconds + result["seconds"])
