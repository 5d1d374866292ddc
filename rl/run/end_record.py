"""`end.json` in a run's folder: that a command runs there, and how it ended. `thinkvl doctor` reads it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from configs.errors import UserError
from configs.files import read_bytes
from configs.json_io import read_json
from configs.text import one_line

FILE = "end.json"
_ROOM = 4096  # bytes, taken when the command begins: its end can be noted on a full disk too
_LONGEST = 1000  # characters of an error


@dataclass(frozen=True, slots=True, kw_only=True)
class EndRecord:
    """A command's latest state. One that was killed leaves `running`."""

    state: Literal["running", "done", "stopped", "failed"]
    pid: int
    host: str
    time: float  # Unix seconds of its beginning, later of its end
    error: str = ""  # of a failed command: its type and text


@contextlib.contextmanager
def noted_end(folder: Path) -> Iterator[None]:
    """Note that this process runs in `folder`, and when the block ends how. What cannot be written is left out."""
    _note(folder, "running")
    try:
        yield
    except Exception as error:
        _note(folder, "failed", f"{type(error).__name__}: {one_line(error, _LONGEST)}")
        raise
    except BaseException:  # Ctrl-C, SIGTERM
        _note(folder, "stopped")
        raise
    _note(folder, "done")


def read_end(folder: Path) -> EndRecord | None:
    """The record of the folder's latest command; None where there is none that can be read."""
    try:
        read_bytes(folder / FILE, limit=4 * _ROOM)
        return read_json(folder / FILE, EndRecord)
    except (OSError, UserError):
        return None


def _note(folder: Path, state: Literal["running", "done", "stopped", "failed"], error: str = "") -> None:
    record = EndRecord(state=state, pid=os.getpid(), host=socket.gethostname(), time=time.time(), error=error)
    data = json.dumps(asdict(record)).encode()[:_ROOM].ljust(_ROOM) + b"\n"
    with contextlib.suppress(OSError):
        path = folder / FILE
        # In place: a renamed copy would need room that a full disk has not.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            os.pwrite(descriptor, data, 0)
            os.ftruncate(descriptor, len(data))
        finally:
            os.close(descriptor)
