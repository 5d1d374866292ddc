"""Image patches as they travel: 8-bit levels, a quarter of the bytes of the floats that the vision tower reads.

Those of a large image lie in Ray's object store. Whoever reads them fetches them there; the driver does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


class FetchablePatches(Protocol):
    """The patches of a prompt, here or elsewhere: `Patches`, or `rollouts.workers.render_tasks.StoredPatches`."""

    def __len__(self) -> int:
        """How many there are; known without fetching them."""
        ...

    def fetch(self) -> Patches:
        """The patches themselves."""
        ...


@dataclass(frozen=True, slots=True)
class Patches:
    """Image patches `[P, C, h, w]`: uint8 levels with the float of each, or float32 as they are.

    Floats are made where the patches are read, by the same lookup that the image processor makes, so they are the
    same bits. Raises ValueError for uint8 without `level_values`, and for float32 with them.
    """

    data: np.ndarray  # [P, C, h, w] uint8 or float32
    level_values: np.ndarray | None = None  # [C, 256] float32: what each level of a channel stands for; None: float32

    def __post_init__(self) -> None:
        if (self.data.dtype == np.uint8) != (self.level_values is not None):
            given = "not given" if self.level_values is None else "given"
            raise ValueError(f"patches are {self.data.dtype}, and level_values are {given}")

    @classmethod
    def join(cls, given: Sequence[FetchablePatches]) -> Patches:
        """All patches of `given`, one or more, in order; as floats where their levels stand for unlike values."""
        parts = [part.fetch() for part in given]
        first = parts[0].level_values
        if first is not None and all(p.level_values is not None and (p.level_values == first).all() for p in parts):
            return cls(np.concatenate([part.data for part in parts]), first)
        return cls(np.concatenate([part.floats() for part in parts]))

    def __len__(self) -> int:
        """How many there are."""
        return len(self.data)

    def fetch(self) -> Patches:
        """These: they are here."""
        return self

    def floats(self, rows: slice = slice(None)) -> np.ndarray:
        """The patches in `rows` as float32, `[rows, C, h, w]`."""
        data, values = self.data[rows], self.level_values
        if values is None:
            return data
        if (values == values[0]).all():
            return values[0][data]  # one lookup for all channels, several times faster
        return np.stack([own[data[:, channel]] for channel, own in enumerate(values)], axis=1)
