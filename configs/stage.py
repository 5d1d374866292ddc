"""What every stage of a recipe has: its kind, its name, and data of its own where it needs them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from configs.data import DataConfig
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageConfig:
    """One stage of a run. Each kind of stage adds its keys in a class of its own; see `configs.stage_kinds`."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset()  # keys that may differ when a run resumes

    kind: str  # what the stage does, one of the kinds listed below
    name: str = ""  # of its folder, its metrics and its overrides (`NAME.steps=20`); empty: the kind
    # what this stage trains on and is evaluated on; keys left out are those of the run's `data`; null: all of them
    data: DataConfig | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or self.kind)
        letters = "letters, digits, `_` and `-`, beginning with a letter"
        _check(_NAME.fullmatch(self.name) is not None, "name", self.name, letters)
