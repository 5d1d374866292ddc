"""Sends a stream of weights to workers, and compares what each of them then holds with what was sent.

Where all workers are on the sender's node, a bucket is in memory that they share with it, and the next version is
written there again. Elsewhere it is in Ray's object store once; workers of its node read it there, those of other nodes
get a copy each. While the workers load one bucket, the learner prepares the next.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError

from rollouts.shared_memory import SharedMemory
from rollouts.weight_checksums import LoadedWeights, differing
from rollouts.weight_stream import Bucket, Shapes, WeightStream

IN_FLIGHT = 2  # buckets that a worker has not confirmed, while the learner prepares the next
LOAD_SECONDS = 600.0  # for a worker to load a bucket


class Unpublished(Exception):
    """The stream of the published version ended before its last bucket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """How a stream ended: all other workers have confirmed it."""

    wrong: Mapping[int, str]  # workers that serve other weights, and which
    lost: Sequence[int]  # workers that died or hung


@dataclass(slots=True, kw_only=True)
class StoredWeights:
    """One version's buckets, in the object store or in shared memory: what a worker that is replaced later gets."""

    version: int
    shapes: Shapes
    buckets: deque[Bucket] = field(default_factory=deque)
    complete: bool = False

    def fill(self, stream: WeightStream, before: StoredWeights | None, *, shared: bool) -> Iterator[Bucket]:
        """Each bucket of `stream`, once it is stored, in shared memory where all readers can map it (`shared`).

        The version `before` gives up a bucket for each, and its memory with it: one version is held, not two. So no
        worker may make a step between the first bucket and its confirmation of the last.
        """
        given_up: deque[Bucket | None] = deque()

        def give_up() -> Bucket | None:
            given_up.append(before.buckets.popleft() if before is not None and before.buckets else None)
            if before is not None and given_up[-1] is not None:
                before.complete = False
            return given_up[-1]

        def memory(nbytes: int) -> SharedMemory:
            old = give_up()
            fits = old is not None and isinstance(old.data, SharedMemory) and old.data.nbytes == nbytes
            return old.data if old is not None and fits else SharedMemory(nbytes)

        stream.place.memory = memory if shared else None
        for bucket in stream.buckets:
            if not given_up:
                give_up()
            given_up.clear()
            if not isinstance(bucket.data, SharedMemory | ray.ObjectRef):
                bucket = replace(bucket, data=ray.put(list(bucket.data)))
            self.buckets.append(bucket)
            yield bucket
        self.complete = True

    def again(self, *, shared: bool) -> Iterator[Bucket]:
        """The stored buckets, those in shared memory by way of the object store where not all readers can map them.

        Raises Unpublished where the stream broke off.
        """
        if not self.complete:
            raise Unpublished(f"version {self.version} was not published to its end")
        for bucket in self.buckets:
            if isinstance(bucket.data, SharedMemory) and not shared:
                bucket = replace(bucket, data=ray.put(list(bucket.arrays())))
            yield bucket


@dataclass(slots=True, kw_only=True)
class _Receiver:
    """A worker that loads a stream."""

    actor: Any
    lost: str | None = None  # how its process ended
    wrong: list[str] = field(default_factory=list)  # tensors that it holds with other values
    unconfirmed: deque[tuple[Mapping[str, int], Any]] = field(default_factory=deque)

    def result(self, future: Any) -> Any:
        """What a call returned; None where the worker is lost. Raises what the call raised."""
        try:
            return ray.get(future, timeout=LOAD_SECONDS)
        except RayActorError as error:
            self.lost = " ".join(str(error).split())
        except GetTimeoutError:
            self.lost = f"new weights were not loaded within {LOAD_SECONDS:.0f} s"
        return None

    def give(self, bucket: Bucket) -> None:
        """Have it load a bucket."""
        future = self.actor.load_bucket.remote(bucket.tensors, bucket.data)
        self.unconfirmed.append(({sent.name: sent.checksum for sent in bucket.tensors}, future))

    def confirm(self, *, leave: int) -> None:
        """Compare what it holds with what was sent, until it has at most `leave` buckets to confirm."""
        while self.lost is None and len(self.unconfirmed) > leave:
            expected, future = self.unconfirmed.popleft()
            found = self.result(future)
            if found is not None:
                self.wrong += differing(expected, found)


def send_weights(
    actors: Mapping[int, Any],
    shapes: Shapes,
    buckets: Iterable[Bucket],
    *,
    version: int,
    on_lost: Callable[[int, str], None],
    padding_stats: Counter[str],
) -> Sent:
    """Send one version to workers, by slot.

    A worker serves the version once it has confirmed every bucket; until then it makes no step. `on_lost` is called
    with each worker that died or hung, while the others go on. `padding_stats` gets what the workers counted. Raises
    ValueError, before anything has changed, where the weights do not fit the model.
    """
    receivers = {slot: _Receiver(actor=actor) for slot, actor in actors.items()}
    live = dict(receivers)

    def drop_lost() -> None:
        for slot, receiver in list(live.items()):
            if receiver.lost is not None:
                on_lost(slot, receiver.lost)
                del live[slot]

    started = [(receiver, receiver.actor.start_load.remote(shapes)) for receiver in live.values()]
    for receiver, future in started:
        receiver.result(future)
    drop_lost()
    for bucket in buckets:
        for receiver in live.values():
            receiver.give(bucket)
        for receiver in live.values():
            receiver.confirm(leave=IN_FLIGHT - 1)
        drop_lost()
    for receiver in live.values():
        receiver.confirm(leave=0)
    drop_lost()
    wrong = {slot: _other_values(slot, receiver.wrong) for slot, receiver in live.items() if receiver.wrong}
    ends = {slot: live[slot].actor.finish_load.remote(version) for slot in live.keys() - wrong.keys()}
    for slot, future in ends.items():
        loaded: LoadedWeights | None = live[slot].result(future)
        if loaded is not None:
            padding_stats.update(loaded.padding_stats)
            if loaded.version != version:
                wrong[slot] = f"worker {slot} serves version {loaded.version}"
    drop_lost()
    return Sent(wrong=wrong, lost=[slot for slot, receiver in receivers.items() if receiver.lost is not None])


def _other_values(slot: int, names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"worker {slot} holds other values of {', '.join(sorted(names)[:5])}{more}"
