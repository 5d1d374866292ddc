"""Worker calls without waiting: a verifier that needs a worker's result is suspended and later run again with it.

Verifiers are plain functions. Where strings and exact numbers do not settle a case, they call `worker.call(request)`.
To wait there would take a thread for each response. `ResumableWorker.run` does this instead:

1. It calls the verifier. At the first `worker.call` the request goes to the pool, `_Suspend` leaves the verifier, and
   `run` returns.
2. When the result is there, the verifier is called again from the start. Its first `worker.call` now returns the
   result at once, and the verifier goes on to its verdict, or to its next `worker.call`, which suspends it again.

So a verifier must be deterministic, must make its calls in the same order each time, and must not catch BaseException.
What it does before a call is repeated; that is cheap, because only the fast path comes before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rewards.sandbox.pool import Flow, WorkerPool
from rewards.types import Verdict

_MAX_CALLS = 20  # worker calls of one verification

Result = dict[str, Any] | BaseException
Done = Callable[[Verdict | Exception, float], None]


class _Suspend(BaseException):
    """Leaves the verifier until `request` has a result. No Exception, so that no handler of a verifier catches it."""

    def __init__(self, request: dict[str, Any], seconds: float | None) -> None:
        self.request, self.seconds = request, seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verification:
    """One verification: the call, where its verdict goes, and the results of the worker calls made so far."""

    verify: Callable[[], Verdict]
    done: Done
    flow: Flow
    results: tuple[Result, ...] = ()
    seconds: float = 0.0  # of workers


class ResumableWorker:
    """The worker that a scorer gives to its verifiers. Outside of `run` its calls wait, as those of the pool do."""

    def __init__(self, pool: WorkerPool) -> None:
        self._pool = pool
        self._local = threading.local()

    def call(self, request: dict[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """The worker's answer to `request`; suspends a verifier that `run` called.

        Raises WorkerTimeout or WorkerDied.
        """
        results: list[Result] | None = getattr(self._local, "results", None)
        if results is None:
            return self._pool.call(request, seconds=seconds)
        if not results:
            raise _Suspend(request, seconds)
        result = results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    def close(self) -> None:
        """End the pool's processes."""
        self._pool.close()

    def run(self, verify: Callable[[], Verdict], done: Done, flow: Flow) -> None:
        """Call `verify`, and then `done` with its verdict and the seconds of workers, in this or another thread.

        `done` gets the exception instead where `verify` raised one, or made more than 20 worker calls.
        """
        self._run(_Verification(verify=verify, done=done, flow=flow))

    def _run(self, current: _Verification) -> None:
        self._local.results = list(current.results)
        try:
            verdict: Verdict | Exception = current.verify()
        except _Suspend as suspended:
            if len(current.results) < _MAX_CALLS:
                future = self._pool.submit(suspended.request, seconds=suspended.seconds, flow=current.flow)
                future.add_done_callback(lambda finished: self._resume(current, finished))
                return
            verdict = RuntimeError(f"a verifier called its worker more than {_MAX_CALLS} times")
        except Exception as error:  # a programmer's error, raised where the verdict is waited for
            verdict = error
        finally:
            self._local.results = None
        current.done(verdict, current.seconds)

    def _resume(self, suspended: _Verification, finished: Future[dict[str, Any]]) -> None:
        error = finished.exception()
        reply = {"answer": error, "seconds": 0.0} if error is not None else finished.result()
        self._run(
            _Verification(
                verify=suspended.verify,
                done=suspended.done,
                flow=suspended.flow,
                results=(*suspended.results, reply["answer"]),
                seconds=suspended.seconds + reply["seconds"],
            )
        )
