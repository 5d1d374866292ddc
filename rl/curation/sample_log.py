"""A log of samples: a block of samples is one line, synced to disk, and is never generated again."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from configs.errors import UserError
from configs.json_io import parse_json


class SampleLog:
    """`FILE.samples.jsonl`: a line of settings, then a line for each named block.

    A line that a kill or a full disk cut short is removed when the log is opened again.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self._file = path, file
        self._places: dict[str, tuple[int, int]] = {}  # name of a block -> offset and length of its line

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def append(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Append a block and sync it to disk. Raises OSError, such as for a full disk."""
        start = self._file.seek(0, os.SEEK_END)
        line = json.dumps({"block": name, "rows": rows}).encode() + b"\n"
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._places[name] = (start, len(line))

    def read(self, name: str) -> list[dict[str, Any]]:
        """The rows of a block. Raises UserError for a damaged line."""
        start, length = self._places[name]
        self._file.seek(start)
        return _parsed(self._file.read(length), self.path)["rows"]

    def index(self, settings: Mapping[str, Any]) -> None:
        """Index the existing blocks, or write the settings to an empty file. Raises UserError for other settings."""
        self._file.seek(0)
        end, number = 0, 0
        for number, line in enumerate(self._file):
            if not line.endswith(b"\n"):
                break
            found = _parsed(line, self.path)
            if number == 0:
                _same_settings(found, settings, self.path)
            elif isinstance(found.get("block"), str) and isinstance(found.get("rows"), list):
                self._places[found["block"]] = (end, len(line))
            else:
                raise _damaged(self.path)
            end += len(line)
        self._file.truncate(end)
        if end == 0:
            self._file.seek(0)
            self._file.write(json.dumps({"settings": settings}).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())


@contextmanager
def open_sample_log(path: Path, settings: Mapping[str, Any]) -> Iterator[SampleLog]:
    """Open the log in `path` and lock it for this process. Its folder is created if needed.

    Raises UserError for a log with other settings, a damaged one, or one that another process writes, and OSError if
    it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path}: must be a file, and is a folder, a device, a pipe or a socket")
    path.touch()
    with path.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{path}: another process is writing it; wait for it, stop it, or choose another output"
            ) from error
        log = SampleLog(path, file)
        log.index(settings)
        yield log


def _parsed(line: bytes, path: Path) -> dict[str, Any]:
    try:
        value = parse_json(line)
    except ValueError as error:
        raise _damaged(path) from error
    if not isinstance(value, dict):
        raise _damaged(path)
    return value


def _same_settings(found: Mapping[str, Any], settings: Mapping[str, Any], path: Path) -> None:
    there = found.get("settings")
    if not isinstance(there, dict):
        raise _damaged(path)
    if there != json.loads(json.dumps(settings)):
        raise UserError(
            f"{path}: its samples were drawn otherwise:\n{differences(there, settings)}\n"
            "set these back to go on with them, choose another output, or delete the file"
        )


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """A line for each setting that differs."""
    keys = [key for key in {**there, **now} if there.get(key) != json.loads(json.dumps(now.get(key)))]
    return "\n".join(f"  {key}: {there.get(key)!r} there, {now.get(key)!r} now" for key in keys)


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: is damaged or no file of samples; delete it, or choose another output")
