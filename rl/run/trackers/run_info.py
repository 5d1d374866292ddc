"""What a tracker is given when a run starts or resumes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.yaml_io import flatten


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """A run's folder, its name, and its recipe as plain dicts, lists and scalars."""

    folder: Path
    name: str
    recipe: Mapping[str, object]

    def hyper_parameters(self) -> dict[str, object]:
        """The recipe with dotted keys, without keys that are null. Example: `{"seed": 0, "model.path": "tiny"}`."""
        return {key: value for key, value in flatten(self.recipe).items() if value is not None}

    def id(self, tracker: str) -> str:
        """The id of this run at `tracker`. It is kept in the folder, so a resumed run goes on with the same curves."""
        path = self.folder / f"{tracker}.id"
        if not path.exists():
            self.keep_id(tracker, uuid.uuid4().hex)
        return path.read_text(encoding="utf-8")

    def known_id(self, tracker: str) -> str | None:
        """The id that was kept for `tracker`, if any."""
        path = self.folder / f"{tracker}.id"
        return path.read_text(encoding="utf-8") if path.exists() else None

    def keep_id(self, tracker: str, value: str) -> None:
        """Remember an id that the tracker's server has chosen."""
        (self.folder / f"{tracker}.id").write_text(value, encoding="utf-8")
