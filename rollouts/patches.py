"""Image patches as they travel: 8-bit levels, a quarter of the bytes of the floats that the vision tower reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rollouts.stored import Stored, fetch_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Patches:
    """Image patches `[P, C, h, w]`: uint8 levels with the float of each, or float32 as they are.

    The levels may lie in Ray's object store. Floats are made where the patches are read, by the same lookup that the
    image processor makes, so they are the same bits.
    """

    count: int  # P
    data: Stored[np.ndarray]  # [P, C, h, w] uint8 or float32
    level_values: np.ndarray | None = None  # [C, 256] float32: what each level of a channel stands for; None: float32

    @classmethod
    def of(cls, data: np.ndarray, level_values: np.ndarray | None = None) -> Patches:
        """Patches of this process. Raises ValueError for uint8 without `level_values`, or float32 with them."""
        if (data.dtype == np.uint8) != (level_values is not None):
            raise ValueError(f"patches are {data.dtype}, and level_values are {'not ' * (level_values is None)}given")
        return cls(count=len(data), data=Stored.here(data), level_values=level_values)

    @classmethod
    def join(cls, parts: Sequence[Patches]) -> Patches:
        """All patches of `parts`, one or more, in order; what lies in the store is fetched in one call."""
        arrays, first = fetch_all([part.data for part in parts]), parts[0].level_values
        if first is not None and all(p.level_values is not None and (p.level_values == first).all() for p in parts):
            return cls.of(np.concatenate(arrays), first)
        return cls.of(np.concatenate([_floats(a, p.level_values) for a, p in zip(arrays, parts, strict=True)]))

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def floats(self, rows: slice = slice(None)) -> np.ndarray:
        """The patches in `rows` as float32, `[rows, C, h, w]`."""
        return _floats(self.data.fetch()[rows], self.level_values)


def _floats(data: np.ndarray, level_values: np.ndarray | None) -> np.ndarray:
    if level_values is None:
        return data
    if (level_values == level_values[0]).all():
        return level_values[0][data]  # one lookup for all channels, several times faster
    return np.stack([values[data[:, channel]] for channel, values in enumerate(level_values)], axis=1)
