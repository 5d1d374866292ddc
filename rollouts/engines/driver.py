"""Drives an engine: streams, blocking generation, cancellation, weight loading and the heartbeat, for all engines."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Any

import torch

from configs.rl import SamplingConfig
from rollouts.engines.fair_lock import FairLock
from rollouts.engines.protocol import Engine, FinishedGroup, ReadableWeights, SharesWeights
from rollouts.request_queue import QueueUpdate, RequestQueue
from rollouts.resource_use import EngineUse
from rollouts.shared_memory import SharedMemory
from rollouts.types import Completion, Request
from rollouts.weight_checksums import checksum, checksums
from rollouts.weight_stream import Bucket, Shapes, stream_of


class EngineDriver:
    """Serves any number of streams from one engine. All methods may be called from any thread, also between two
    results of a stream.

    A stream does its work in the thread that iterates over it. Each step serves the requests of all streams; results
    of other streams wait until those are iterated over.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._lock = FairLock()
        self._indices = count()
        self._expected: set[int] = set()  # indices whose streams wait for them
        self._finished: dict[int, list[Completion]] = {}  # by index, until their stream takes them
        self._aborts = self._steps = 0
        self._busy = 0.0  # seconds of steps since the last report
        self._loading: ExitStack | None = None  # holds the lock from `start_load` to `finish_load`
        self._received: dict[str, int] = {}  # checksums of the last weights
        self._served: dict[str, torch.Tensor] = {}  # the engine's own tensors while it loads

    @property
    def version(self) -> int:
        """The policy version that the next token will come from."""
        return self.engine.version

    @property
    def heartbeat(self) -> int:
        """A number that grows while the engine works. An engine hangs if it stands still while requests are running."""
        return self._steps + self.engine.progress

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        """Return `request.n` completions for each request, in the order of `requests`."""
        results = dict(self.stream(requests, sampling))
        return [results[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[Request] | RequestQueue, sampling: SamplingConfig) -> Iterator[FinishedGroup]:
        """Yield (index of the request, its completions) as requests finish.

        Requests that are put into a `RequestQueue` join at the next step. The stream ends when the queue is closed and
        every request has been returned, or after `abort`. Raises ValueError for a request that the engine refuses.
        """
        queue = requests if isinstance(requests, RequestQueue) else RequestQueue(requests)
        aborts, numbers = self._aborts, count()
        running: dict[int, int] = {}  # engine index -> index of the request in this stream
        try:
            while (update := queue.take(wait=not running)) is not None or running:
                aborted = aborts != self._aborts
                with self._lock.held():
                    if update is not None:
                        self._apply(update, running, numbers, sampling)
                    if aborted:
                        self._collect(self.engine.cancel(running))
                    elif not running.keys() <= self._finished.keys():
                        self._step()
                    finished = [(i, self._finished.pop(i)) for i in list(self._finished) if i in running]
                    self._expected.difference_update(index for index, _ in finished)
                for index, completions in finished:
                    yield running.pop(index), completions
                if aborted:
                    return
        finally:  # also where the caller stops iterating
            if running:
                with self._lock.held():
                    self._forget(running)

    def abort(self) -> None:
        """End every running stream; unfinished samples come back with what they have and the reason `abort`."""
        self._aborts += 1

    def load_weights(self, weights: Mapping[str, Any], *, version: int) -> None:
        """Replace the weights between two steps. Running samples continue; their next tokens are of `version`.

        Raises ValueError, before anything is changed, if names or shapes do not fit.
        """
        stream = stream_of(weights)
        self.start_load(stream.shapes)
        for bucket in stream.buckets:
            self.load_bucket(bucket)
        self.finish_load(version)

    def start_load(self, shapes: Shapes) -> None:
        """Begin to replace the weights. No step is made until `finish_load`: no token comes from half of a version.

        A load that was begun and not finished starts from its beginning. Raises ValueError, before anything is
        changed, if names or shapes do not fit.
        """
        with ExitStack() as stack:
            if not self._loading:
                stack.enter_context(self._lock.held())
            self.engine.start_load(shapes)
            self._loading, self._received = self._loading or stack.pop_all(), {}
            self._served = dict(self.engine.served_weights()) if isinstance(self.engine, ReadableWeights) else {}

    def load_bucket(self, bucket: Bucket) -> dict[str, int]:
        """Replace some of the weights. Returns the checksums of these tensors as the engine holds them now."""
        assert self._loading, "start_load comes first"
        if isinstance(bucket.data, SharedMemory) and isinstance(self.engine, SharesWeights):
            self._served |= self.engine.share_weights(bucket.named())
        else:
            self.engine.load_weights(bucket.named())
        self._steps += 1
        found = self._checksums(bucket)
        self._received |= found
        return found

    def finish_load(self, version: int) -> None:
        """Serve `version` from the next token on."""
        assert self._loading, "start_load comes first"
        self.engine.finish_load(version)
        self._steps += 1
        loading, self._loading, self._served = self._loading, None, {}
        loading.close()

    def sleep(self) -> None:
        """Have the engine free its memory; no request may be running."""
        with self._lock.held():
            self.engine.sleep()
            self._steps += 1

    def wake(self) -> None:
        """Have the engine take its memory back. Its weights are undefined until `load_weights`."""
        with self._lock.held():
            self.engine.wake()
            self._steps += 1

    def weight_checksums(self) -> dict[str, int]:
        """The checksum of every tensor that the engine serves, by state-dict name.

        An engine with `served_weights` reads its tensors back. For the others these are the checksums of the weights
        that were loaded last, empty before the first; the parity check then shows what the engine made of them.
        """
        return checksums(self.engine.served_weights()) if isinstance(self.engine, ReadableWeights) else self._received

    def take_padding_stats(self) -> Counter[str]:
        """Positions `computed` since the last call, and the `padded` ones among them."""
        return self.engine.take_padding_stats()

    def take_use(self) -> EngineUse:
        """Seconds that steps took, and what the cache did, since the last call. It does not wait for a running step."""
        busy, self._busy = self._busy, 0.0
        return EngineUse(busy=busy, cache=self.engine.take_cache_use())

    def close(self) -> None:
        """End the streams and free the engine."""
        self.abort()
        with self._lock.held():
            self.engine.close()

    def _step(self) -> None:
        began = time.perf_counter()
        self._collect(self.engine.step())
        self._busy += time.perf_counter() - began
        self._steps += 1

    def _apply(
        self, update: QueueUpdate, running: dict[int, int], numbers: Iterator[int], sampling: SamplingConfig
    ) -> None:
        """Add new requests to the engine, and cancel those that are no longer wanted."""
        for request in update.requests:
            index = next(self._indices)
            running[index] = next(numbers)
            self._expected.add(index)
            self.engine.add(index, request, sampling)
        if update.cancelled:
            cancelled = set(update.cancelled)
            self._collect(self.engine.cancel([index for index, number in running.items() if number in cancelled]))

    def _checksums(self, bucket: Bucket) -> dict[str, int]:
        """Of a bucket that has been loaded: read back in the type in which it was sent, where the engine can."""
        if not self._served:
            return {sent.name: checksum(data) for sent, data in zip(bucket.tensors, bucket.arrays(), strict=True)}
        return checksums({sent.name: self._served[sent.name].to(getattr(torch, sent.dtype)) for sent in bucket.tensors})

    def _collect(self, groups: Iterable[FinishedGroup]) -> None:
        self._finished.update((index, completions) for index, completions in groups if index in self._expected)

    def _forget(self, indices: Iterable[int]) -> None:
        """Cancel the requests of a stream that nobody reads any more, and drop what they produced."""
        self._expected.difference_update(indices)
        self._collect(self.engine.cancel(indices))
        for index in indices:
            self._finished.pop(index, None)
