"""Checksums of weights: what was published against what an engine really holds, tensor by tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedWeights:
    """A worker's reply to new weights: the version it serves, and the checksum of every tensor that it holds.

    `padding_stats` counts since the last reply: positions `computed` by the model, and the `padded` ones among them.
    """

    version: int
    checksums: Mapping[str, int]
    padding_stats: Mapping[str, int] = field(default_factory=dict)


def checksums(weights: Mapping[str, np.ndarray | torch.Tensor]) -> dict[str, int]:
    """A 64-bit hash (XXH3) of the bytes of each tensor, by name. bfloat16 counts as float32, as it is published.

    It reads every byte once, at the speed of memory; a flipped bit or values that changed places give another number.
    """
    import xxhash  # an engine runs without it where nothing is published

    return {name: xxhash.xxh3_64_intdigest(_bytes(value).data) for name, value in weights.items()}


def differing(expected: Mapping[str, int], served: Mapping[str, int]) -> list[str]:
    """Names whose checksums differ, or that one side lacks."""
    return sorted(name for name in expected.keys() | served.keys() if expected.get(name) != served.get(name))


def _bytes(value: np.ndarray | torch.Tensor) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = (value.float() if value.dtype == torch.bfloat16 else value).detach().cpu().numpy()
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8)
