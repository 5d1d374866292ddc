"""Checksums of weights: what was published against what an engine really holds, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """A worker's reply when it has all weights: the version that it serves from now on.

    `padding_stats` counts since the last reply: positions `computed` by the model, and the `padded` ones among them.
    """

    version: int
    padding_stats: Mapping[str, int] = field(default_factory=dict)


def checksums(weights: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, int]:
    """A 64-bit hash (XXH3) of the bytes of each tensor, by name.

    It reads every byte once, at the speed of memory; a flipped bit or values that changed places give another number.
    """
    return {name: checksum(tensor_bytes(value)) for name, value in weights.items()}


def checksum(data: np.ndarray) -> int:
    """The hash of one tensor's bytes."""
    import xxhash  # an engine runs without it where nothing is published

    return xxhash.xxh3_64_intdigest(data.data)


def differing(expected: Mapping[str, int], served: Mapping[str, int]) -> list[str]:
    """Names whose checksums differ, or that one side lacks."""
    return sorted(name for name in expected.keys() | served.keys() if expected.get(name) != served.get(name))


def tensor_bytes(value: np.ndarray | torch.Tensor) -> np.ndarray:
    """The bytes of a tensor, `uint8`; its own memory where it is contiguous and on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)
