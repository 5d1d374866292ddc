"""What every section of the schema is made with: closed keys, and rules that say the value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLOSED: Mapping[str, Any] = {"extra": "forbid"}  # pydantic reads it from each class: unknown keys are errors


def check(ok: bool, key: str, value: object, allowed: str) -> None:
    """Raise a ValueError that names the key, its value and what is allowed."""
    if not ok:
        raise ValueError(f"{key} = {value!r}: must be {allowed}")
