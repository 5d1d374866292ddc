"""The weights of one policy version as a stream of buckets, from a learner to its engines.

A bucket is some of the tensors, in the engine's dtype. A learner gathers, merges and casts one bucket at a time, so no
process holds more than a few of them beside its own weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rollouts.weight_checksums import checksum, tensor_bytes

Shapes = Mapping[str, tuple[int, ...]]
BUCKETS = 16  # of a model that is neither small nor large: enough of them that loading overlaps with gathering
SMALLEST, LARGEST = 8 << 20, 512 << 20  # bytes that fill a bucket; a larger layer is a bucket of its own


@dataclass(frozen=True, slots=True, kw_only=True)
class SentTensor:
    """One tensor of a bucket: how to read its bytes, and their checksum on the learner's side."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    checksum: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Some of the tensors of one version.

    `data` has the bytes of each tensor, `uint8`. They may be the learner's own memory, so read them before its next
    update. In Ray's object store they are a reference to such a list.
    """

    tensors: tuple[SentTensor, ...]
    data: Any

    def named(self) -> dict[str, torch.Tensor]:
        """The tensors by name. They share the memory of `data`; do not write to them."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            flat = [torch.from_numpy(data) for data in self.data]
        return {
            sent.name: data.view(getattr(torch, sent.dtype)).view(sent.shape)
            for sent, data in zip(self.tensors, flat, strict=True)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightStream:
    """All weights of one version. The buckets can be iterated once, and hold every name of `shapes` once."""

    shapes: Shapes
    buckets: Iterable[Bucket]


def stream_of(weights: Mapping[str, np.ndarray | torch.Tensor]) -> WeightStream:
    """Weights that are whole in this process, as they are."""
    tensors = {name: torch.as_tensor(value) for name, value in weights.items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return WeightStream(shapes=shapes, buckets=fill_buckets(tensors.items(), limit=bucket_bytes(_bytes(tensors))))


def bucket_bytes(total: int) -> int:
    """The bytes that fill a bucket, for a model of `total` bytes."""
    return min(max(total // BUCKETS, SMALLEST), LARGEST)


def fill_buckets(tensors: Iterable[tuple[str, torch.Tensor]], *, limit: int) -> Iterator[Bucket]:
    """Named tensors, in their order, in buckets that end with the layer in which they reach `limit` bytes.

    Layers stay whole: an engine may fuse or rename the tensors of one together.
    """
    names: list[str] = []
    held: list[torch.Tensor] = []
    size = 0
    for name, tensor in tensors:
        if size >= limit and layer_of(name) != layer_of(names[-1]):
            yield _bucket(names, held)
            names, held, size = [], [], 0
        names.append(name)
        held.append(tensor)
        size += tensor.nbytes
        del tensor  # or the last one would stay while the next is gathered
    if held:
        yield _bucket(names, held)


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


def _bucket(names: Sequence[str], tensors: Sequence[torch.Tensor]) -> Bucket:
    data = [tensor_bytes(tensor) for tensor in tensors]
    sent = tuple(
        SentTensor(
            name=name,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            nbytes=own.nbytes,
            checksum=checksum(own),
        )
        for name, tensor, own in zip(names, tensors, data, strict=True)
    )
    return Bucket(tensors=sent, data=data)


def _bytes(tensors: Mapping[str, torch.Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
