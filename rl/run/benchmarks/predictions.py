"""The file of a benchmark's predictions: one JSON line for each question, each synced to disk.

The first line holds the settings. An evaluation that was killed continues after the last complete line.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from configs.errors import UserError
from configs.files import read_bytes
from configs.json_io import parse_json
from configs.text import one_line

_MOST_BYTES = 2**33


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """A question, its response and the verdict; or the reason in `left_out` why there is no response."""

    id: str
    number: int  # of the row in the data
    question: str = ""
    answer: str = ""
    prediction: str = ""
    extracted: str | None = None
    kind: str = ""  # a `VerdictKind`
    score: float = 0.0
    rule: str = ""
    detail: str = ""
    tokens: int | None = None
    cut_off: bool = False
    thinks: bool = False
    left_out: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)


class PredictionFile:
    """Predictions by their ids, read back when it is opened, appended one by one: `with PredictionFile(...) as file`.

    Raises UserError where the file was made with other settings, is damaged before its end, or is being written.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.found: dict[str, Prediction] = {}
        self._settings = json.loads(json.dumps(settings))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: BinaryIO = path.open("ab")
        _lock(self._file, path)
        whole = self._read()
        self._file.truncate(whole)  # the line that a kill cut short
        if not whole:
            self._append({"settings": self._settings})

    def __enter__(self) -> PredictionFile:
        """The file itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file; every line is on disk already."""
        self._file.close()

    def add(self, prediction: Prediction) -> None:
        """Append a prediction and sync it to disk."""
        self._append(asdict(prediction))
        self.found[prediction.id] = prediction

    def done(self, task_id: str) -> bool:
        """Whether there is a response; a question that was left out is retried."""
        return task_id in self.found and not self.found[task_id].left_out

    def _append(self, value: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(value, ensure_ascii=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> int:
        """Read the lines back; return the length of the complete lines in bytes."""
        data = read_bytes(self.path, limit=_MOST_BYTES)
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                value = parse_json(line)
                if number == 1:
                    self._check(value["settings"])
                else:
                    prediction = Prediction(**value)
                    self.found[prediction.id] = prediction
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"{self.path}: line {number} is no prediction ({one_line(error)}); move the file away, and the "
                    "evaluation starts again"
                ) from error
        return whole

    def _check(self, made_with: Mapping[str, Any]) -> None:
        changed = [
            f"{key} was {made_with.get(key)!r} and is {self._settings.get(key)!r}"
            for key in dict.fromkeys([*made_with, *self._settings])
            if made_with.get(key) != self._settings.get(key)
        ]
        if changed:
            raise UserError(
                f"{self.path}: holds predictions that were made otherwise: {'; '.join(changed)}. Evaluate in the same "
                "way to continue, or choose another folder with --output"
            )


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"{path}: another evaluation writes it; wait for it, or choose another --output") from error
