"""Files that are written in whole or not at all, and read only where they have an end."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

MAX_IMAGE_BYTES = 256 * 2**20
MAX_TEXT_BYTES = 64 * 2**20


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read its bytes.

    Raises OSError, also for a folder, a device, a pipe or a socket: reading one may never end, or do something.
    """
    _check_regular(path, path.stat())
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: PTH123, SIM115
    try:
        _check_regular(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def read_bytes(path: Path, *, limit: int = MAX_TEXT_BYTES) -> bytes:
    """The bytes of a regular file. Raises OSError, also for more than `limit` bytes."""
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EINVAL, f"holds more than {limit:,} bytes", str(path))
    return data


def _check_regular(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "must be a file, and is a device, a pipe or a socket", str(path))


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Yield a file; when the block ends, it is flushed to disk and renamed to `path`. An exception removes it.

    The temporary file is `NAME.partial` in the same folder, which is created if needed. A left-over one is removed
    first, so a link that somebody planted there is not followed. Raises OSError, such as for a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))
