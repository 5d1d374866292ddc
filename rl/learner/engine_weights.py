"""Weights on their way to engines: in the type that those serve."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import nn

from rl.learner.lora import merged_weights


def to_engine_dtype(
    weights: Iterable[tuple[str, torch.Tensor]], model: nn.Module, dtype: str | None
) -> Iterator[tuple[str, torch.Tensor]]:
    """Round the weights of `model` to `dtype`; None leaves them as they are.

    Checksums are taken of the result, so an engine that holds exactly these values is proven. Buffers keep their type,
    as in the engines and in FSDP's mixed precision: a router's bias decides which experts are chosen.
    """
    kept = {name for name, _ in model.named_buffers()}
    for name, tensor in weights:
        yield name, tensor if dtype is None or name in kept else tensor.to(getattr(torch, dtype))


def numpy_weights(model: nn.Module, dtype: str | None = None) -> dict[str, np.ndarray]:
    """A copy of a model's merged weights as arrays, rounded to the type that the engines serve."""
    return to_arrays(to_engine_dtype(merged_weights(model), model, dtype))


def to_arrays(weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    """Named tensors copied to arrays. numpy has no bfloat16, which goes as float32: that is exact."""
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).detach().cpu().numpy().copy() for name, t in weights}
