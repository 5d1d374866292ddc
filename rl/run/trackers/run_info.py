"""The facts about a run that trackers receive when it starts or resumes."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.files import read_bytes, write_text
from configs.yaml_io import flatten

_ID = re.compile(r"[\w-]{1,128}")


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
        """The id of this run at `tracker`. It is stored in the folder, so that a resumed run continues its curves."""
        known = self.known_id(tracker)
        if known is None:
            known = uuid.uuid4().hex
            self.keep_id(tracker, known)
        return known

    def known_id(self, tracker: str) -> str | None:
        """The stored id for `tracker`, if any. Raises UserError for a file that holds something else."""
        path = self.folder / f"{tracker}.id"
        try:
            text = read_bytes(path).decode("ascii")
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            text = ""
        if _ID.fullmatch(text) is None:
            raise UserError(f"{path}: is damaged or no id of a run; put it back, or delete it to begin with new curves")
        return text

    def keep_id(self, tracker: str, value: str) -> None:
        """Store an id that the tracker's server has chosen."""
        write_text(self.folder / f"{tracker}.id", value)
