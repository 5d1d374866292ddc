"""A model's weights as a stream of buckets in the engines' dtype, adapters merged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from rl.learner.lora import Cast, merged_weights, without_adapters
from rollouts.weight_stream import BucketPlace, WeightStream, bucket_bytes, fill_buckets

Merged = Callable[[nn.Module, Cast], Iterator[tuple[str, torch.Tensor]]]


def weight_stream(
    model: nn.Module, dtype: str | None = None, *, merged: Merged = merged_weights, limit: int | None = None
) -> WeightStream:
    """The weights of `model` in `dtype`; None keeps each tensor's own.

    A bucket may be the model's own memory: read it before the next update. `merged` gathers and merges one tensor at a
    time. `limit` is how many bytes fill a bucket; None depends on the model's size.
    """
    state = without_adapters(model.state_dict())
    buffers = frozenset(name for name, _ in model.named_buffers())
    cast = CastTo(dtype=None if dtype is None else getattr(torch, dtype), kept=buffers)
    if limit is None:
        limit = bucket_bytes(
            sum(tensor.numel() * cast.type_of(name, tensor).itemsize for name, tensor in state.items())
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    place = BucketPlace()
    return WeightStream(shapes=shapes, buckets=fill_buckets(merged(model, cast), limit=limit, place=place), place=place)


@dataclass(frozen=True, slots=True, kw_only=True)
class CastTo:
    """Rounds weights to `dtype`; None leaves them as they are.

    Buffers (`kept`) keep their type, as in the engines and in FSDP's mixed precision: a router's bias decides which
    experts are chosen.
    """

    dtype: torch.dtype | None
    kept: frozenset[str]

    def type_of(self, name: str, tensor: torch.Tensor) -> torch.dtype:
        """The type in which a tensor is sent."""
        return tensor.dtype if self.dtype is None or name in self.kept else self.dtype

    def __call__(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor in that type; itself where it has it already."""
        return tensor.to(self.type_of(name, tensor))
