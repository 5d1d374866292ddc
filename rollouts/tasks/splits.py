"""Train and held-out parts of the built-in sources: fixed for good, disjoint, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

from rollouts.tasks.dataset import DataSetError

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")


def check_split(source: str, split: str, allowed: Sequence[str] = SPLITS) -> None:
    """Raise DataSetError where `split` is none of those that the source has."""
    check_option(source, "split", split, allowed)


def check_option(source: str, option: str, value: object, allowed: Sequence[str]) -> None:
    """Raise DataSetError where an option of a source has none of the allowed values."""
    if value not in allowed:
        values = " or ".join(allowed) if len(allowed) <= 2 else f"one of {', '.join(allowed)}"
        raise DataSetError(f"{source}: {option} = {value!r}: must be {values}")


def in_share(key: str, share: float) -> bool:
    """Whether `key` is in the part of all texts that `share` (0 to 1) sets apart: its hash decides."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) < share * 2**64
