"""The weights of one policy version as a stream of buckets, from a learner to its engines.

A bucket is some of the tensors, in the engine's dtype. A learner gathers, merges and casts one bucket at a time, so no
process holds more than a few of them beside its own weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch

from rollouts.shared_memory import SharedMemory, copy_with_checksum, parts, room_for
from rollouts.weight_checksums import checksum, tensor_bytes

Shapes = Mapping[str, tuple[int, ...]]
BUCKETS = 16  # of a model that is neither small nor large: enough of them that loading overlaps with gathering
SMALLEST, LARGEST = 8 << 20, 512 << 20  # bytes that fill a bucket; a larger layer is a bucket of its own


class SentTensor(NamedTuple):
    """One tensor of a bucket: how to read its bytes, and their checksum on the learner's side.

    A tuple, since hundreds of them are pickled in a weight sync.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Some of the tensors of one version.

    `data` has the bytes of each tensor, `uint8`. They may be the learner's own memory, so read them before its next
    update. In Ray's object store they are a reference to such a list; in shared memory they lie one after the other.
    """

    tensors: tuple[SentTensor, ...]
    data: Any

    def arrays(self) -> Sequence[np.ndarray]:
        """The bytes of each tensor, in memory of this process or in shared memory."""
        if isinstance(self.data, SharedMemory):
            return parts(self.data.array(), [sent.nbytes for sent in self.tensors])
        return self.data

    def named(self) -> dict[str, torch.Tensor]:
        """The tensors by name. They share the memory of `data`; do not write to them."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            flat = [torch.from_numpy(data) for data in self.arrays()]
        return {
            sent.name: data.view(getattr(torch, sent.dtype)).view(sent.shape)
            for sent, data in zip(self.tensors, flat, strict=True)
        }


@dataclass(slots=True, kw_only=True)
class BucketPlace:
    """Where the reader of a stream wants the buckets: in memory for so many bytes. None: where they are anyway."""

    memory: Callable[[int], SharedMemory] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightStream:
    """All weights of one version. The buckets can be iterated once, and hold every name of `shapes` once."""

    shapes: Shapes
    buckets: Iterable[Bucket]
    place: BucketPlace = field(default_factory=BucketPlace)  # a stream may leave it unread


def stream_of(weights: Mapping[str, np.ndarray | torch.Tensor]) -> WeightStream:
    """Weights that are whole in this process, as they are."""
    tensors = {name: torch.as_tensor(value) for name, value in weights.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    place, limit = BucketPlace(), bucket_bytes(_bytes(tensors))
    return WeightStream(shapes=shapes, buckets=fill_buckets(tensors.items(), limit=limit, place=place), place=place)


def bucket_bytes(total: int) -> int:
    """The bytes that fill a bucket, for a model of `total` bytes."""
    return min(max(total // BUCKETS, SMALLEST), LARGEST)


def fill_buckets(
    tensors: Iterable[tuple[str, torch.Tensor]], *, limit: int, place: BucketPlace | None = None
) -> Iterator[Bucket]:
    """Named tensors, in their order, in buckets that end with the layer in which they reach `limit` bytes.

    Layers stay whole: an engine may fuse or rename the tensors of one together.
    """
    place = place or BucketPlace()
    names: list[str] = []
    held: list[torch.Tensor] = []
    size = 0
    for name, tensor in tensors:
        if size >= limit and layer_of(name) != layer_of(names[-1]):
            yield _bucket(names, held, place)
            names, held, size = [], [], 0
        names.append(name)
        held.append(tensor)
        size += tensor.nbytes
        del tensor  # or the last one would stay while the next is gathered
    if held:
        yield _bucket(names, held, place)


def layer_of(name: str) -> str:
    """The layer or block that a tensor belongs to: its name up to the first number, else its first two parts."""
    parts = name.split(".")
    return ".".join(parts[: next((i + 1 for i, part in enumerate(parts) if part.isdigit()), 2)])


def check_shapes(own: Shapes, sent: Shapes) -> None:
    """Raise ValueError where names or shapes of the weights that are sent differ from the engine's own."""
    if own.keys() != sent.keys():
        missing, extra = sorted(own.keys() - sent.keys())[:3], sorted(sent.keys() - own.keys())[:3]
        raise ValueError(f"weights do not fit: missing {missing}, unexpected {extra}")
    for name, shape in own.items():
        if tuple(sent[name]) != tuple(shape):
            raise ValueError(f"{name}: shape {tuple(sent[name])}, the engine has {tuple(shape)}")


def _bucket(names: Sequence[str], tensors: Sequence[torch.Tensor], place: BucketPlace) -> Bucket:
    data: Any = [tensor_bytes(tensor) for tensor in tensors]
    sizes = [len(own) for own in data]
    if place.memory is None:
        found = [checksum(own) for own in data]
    else:
        memory = place.memory(room_for(sizes))
        found = [copy_with_checksum(part, own) for part, own in zip(parts(memory.array(), sizes), data, strict=True)]
        data = memory
    sent = tuple(
        SentTensor(
            name=name,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            nbytes=size,
            checksum=value,
        )
        for name, tensor, size, value in zip(names, tensors, sizes, found, strict=True)
    )
    return Bucket(tensors=sent, data=data)


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
