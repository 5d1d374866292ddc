"""Keeps a pool's workers busy over the borders of steps: requests as there is room, answers as they complete.

One thread waits for all workers. Whoever uses the workers holds `pool.lock`: this thread while it hands out and takes
in, the run's own thread while it publishes, evaluates or asks. So nothing here needs a lock of its own.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError

from configs.rl import SamplingConfig
from rollouts.types import Completion, Request
from rollouts.workers.health import Watch, diagnose
from rollouts.workers.pool import POLL_SECONDS, RolloutPool
from rollouts.workers.quarantine import Failure

ROOM = 512  # samples that a worker holds: twice what decodes at once, so that a row that ends is filled from its queue
SUSPICIOUS = 2  # failures of workers that owed a request, after which it is asked apart from the others
_LATE = 5 * POLL_SECONDS  # without a look at the heartbeat (another thread held the lock), silence proves nothing


@dataclass(slots=True)
class Line:
    """The stream of answers from one worker, and what it still owes."""

    slot: int
    actor: Any
    answers: Any  # Ray's generator of (number, completions)
    watch: Watch
    looked: float = 0.0  # when its heartbeat was last asked for
    asked: int = 0
    keys: dict[int, int] = field(default_factory=dict)  # of the requests that it owes, by number
    owed: dict[int, Request] = field(default_factory=dict)  # by key

    @property
    def load(self) -> int:
        """Samples that it owes."""
        return sum(request.n for request in self.owed.values())


class RequestDispatcher:
    """Hands requests to the workers of `pool`, each to the one that owes least, and calls `on_answer(key, completions)`
    from its own thread, under `pool.lock`. A request of a task in quarantine is answered without completions.

    A worker that fails is replaced, and what it owed is asked again; requests that were owed in two failures are
    asked by the pool, apart from all others, as a synchronous run would. `room` bounds the samples of a worker.
    """

    def __init__(
        self,
        pool: RolloutPool,
        sampling: SamplingConfig,
        *,
        on_answer: Callable[[int, list[Completion]], None],
        room: int | None = ROOM,
    ) -> None:
        self._pool, self._sampling, self._on_answer, self._room = pool, sampling, on_answer, room
        self.lock = pool.lock
        self._waiting: deque[tuple[int, Request]] = deque()
        self._lines: dict[int, Line] = {}  # by slot
        self._failed: Counter[int] = Counter()  # by key: failures of workers that owed it
        self._cancelled: set[int] = set()  # keys that a worker still owes
        self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="feed", daemon=True)

    def ask(self, requests: Mapping[int, Request]) -> None:
        """Queue requests by key, in order; the workers get them at once as far as they have room."""
        with self.lock:
            self._waiting.extend(requests.items())
            self._hand_out()
            if self._thread.ident is None:
                self._thread.start()
            self.lock.notify_all()

    def cancel(self, keys: Iterable[int]) -> None:
        """End these: those that a worker has come back with the reason `abort`, the others without completions."""
        wanted = set(keys)
        with self.lock:
            unasked = [key for key, _ in self._waiting if key in wanted]
            self._waiting = deque(item for item in self._waiting if item[0] not in wanted)
            for line in self._lines.values():
                numbers = [number for number, key in line.keys.items() if key in wanted]
                if numbers:
                    line.actor.cancel.remote(numbers)
                    self._cancelled.update(line.keys[number] for number in numbers)
            for key in unasked:
                self._on_answer(key, [])

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Sleep until `ready()`, which is looked at under the lock whenever something came. Raises what ended the
        feed's thread.
        """
        with self.lock:
            while not ready():
                if self._error is not None:
                    raise self._error
                self.lock.wait()

    def depths(self) -> tuple[int, int]:
        """Requests that wait for room, and those that workers owe."""
        with self.lock:
            return len(self._waiting), sum(len(line.owed) for line in self._lines.values())

    def close(self) -> None:
        """End the thread and the streams; what is owed is forgotten. The workers belong to the pool."""
        with self.lock:
            self._closed = True
            for line in self._lines.values():
                line.actor.end.remote(line.asked)
            self.lock.notify_all()
        if self._thread.ident is not None:
            self._thread.join(timeout=20)

    # The thread

    def _work(self) -> None:
        try:
            while streams := self._streams():
                ready, _ = ray.wait(streams, timeout=POLL_SECONDS)
                with self.lock:
                    if not self._closed:
                        self._look(ready)
        except BaseException as error:  # the run's thread raises it
            with self.lock:
                self._error = error
                self.lock.notify_all()

    def _streams(self) -> list[Any]:
        """The streams of the workers that owe something; sleeps while none does, and is empty at the end."""
        with self.lock:
            while not self._closed:
                owing = [line.answers for line in self._lines.values() if line.owed]
                if owing:
                    return owing
                self.lock.wait()
            return []

    def _look(self, ready: list[Any]) -> None:
        """Take in one answer, look after the other workers, and hand out what there is room for."""
        for line in list(self._lines.values()):
            if (
                line.actor is not self._pool.worker_group.actors[line.slot]
            ):  # a call of the run's thread met its end first
                self._ask_again(line)
                continue
            failure = self._receive(line) if any(line.answers is stream for stream in ready) else self._silent(line)
            if failure is not None:
                self._pool.replace(line.slot, failure)
                self._settle_suspects(line)
                self._ask_again(line)
        self._hand_out()
        self.lock.notify_all()

    def _receive(self, line: Line) -> Failure | None:
        """Pass on the next answer, or say how the worker failed."""
        try:
            number, completions = ray.get(next(line.answers))
        except RayError as error:
            return self._pool.failure_of(line.slot, error)
        self._answer(line, line.keys.pop(number), completions)
        return None

    def _answer(self, line: Line, key: int, completions: list[Completion]) -> None:
        del line.owed[key]
        self._failed.pop(key, None)
        self._cancelled.discard(key)
        self._on_answer(key, completions)

    def _silent(self, line: Line) -> Failure | None:
        """How a worker hangs that owes something and makes no progress."""
        if not line.owed:
            return None
        if time.monotonic() - line.looked > _LATE:
            line.watch = Watch(line.actor)
        line.looked = time.monotonic()
        line.watch.look()
        if line.watch.silent_for < self._pool.deadline:
            return None
        address = self._pool.worker_group.addresses[line.slot]
        return Failure("hang", diagnose(line.slot, address, line.actor, line.watch, list(line.owed.values())))

    def _settle_suspects(self, line: Line) -> None:
        """Have those answered by themselves that were owed at failure after failure: the pool finds the culprits."""
        self._failed.update(list(line.owed))
        suspects = [key for key in line.owed if self._failed[key] >= SUSPICIOUS]
        if suspects:
            answers = self._pool.generate([line.owed[key] for key in suspects], self._sampling)
            for key, completions in zip(suspects, answers, strict=True):
                self._answer(line, key, completions)

    def _ask_again(self, line: Line) -> None:
        """Forget a line; what it owes goes to the front of the queue."""
        del self._lines[line.slot]
        for key in self._cancelled & line.owed.keys():
            self._answer(line, key, [])
        self._waiting.extendleft(reversed(line.owed.items()))

    # Handing out

    def _hand_out(self) -> None:
        """Give waiting requests to the workers that owe least, as far as they have room."""
        for slot in range(len(self._pool.worker_group.actors) if self._waiting else 0):
            if slot not in self._lines:
                self._lines[slot] = self._open(slot)
        given: dict[int, list[Request]] = {}
        loads = {slot: line.load for slot, line in self._lines.items()}
        while self._waiting:
            key, request = self._waiting[0]
            slot = min(sorted(loads), key=lambda slot: loads[slot])
            if self._room is not None and loads[slot] and loads[slot] + request.n > self._room:
                break
            self._waiting.popleft()
            if request.prompt.task.id in self._pool.quarantine:
                self._on_answer(key, [])
                continue
            line = self._lines[slot]
            line.keys[line.asked], line.owed[key] = key, request
            line.asked += 1
            loads[slot] += request.n
            given.setdefault(slot, []).append(request)
        for slot, requests in given.items():
            self._lines[slot].actor.ask.remote(requests)

    def _open(self, slot: int) -> Line:
        self._pool.worker_group.start([slot])
        actor = self._pool.worker_group.actors[slot]
        return Line(slot, actor, actor.serve.remote(self._sampling), Watch(actor))
