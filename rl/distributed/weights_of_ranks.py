"""The weights of a sharded learner as a stream: the first rank puts the buckets into Ray's object store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from rollouts.weight_stream import Bucket, WeightStream

BUCKETS_AHEAD = 2  # that the first rank prepares before they are taken


def weights_of_ranks(actors: Sequence[Any], dtype: str | None, *, wait: Callable[[list[Any]], object]) -> WeightStream:
    """The weights of learner ranks in `dtype`. Only references and checksums come to this process.

    `wait` takes a future of each rank and raises the error of the rank at fault.
    """
    streams = [actor.stream_weights.remote(dtype) for actor in actors]
    first, ends = streams[0], [stream.completed() for stream in streams]

    def value(future: Any) -> Any:
        try:
            return ray.get(future)
        except RayError:
            wait(ends)
            raise

    def buckets() -> Iterator[Bucket]:
        for data in first:
            tensors = next(first, None)
            if tensors is None:  # `data` is the error of a rank, which `wait` raises
                break
            yield Bucket(tensors=value(tensors), data=data)
        wait(ends)

    return WeightStream(shapes=value(next(first)), buckets=buckets())
