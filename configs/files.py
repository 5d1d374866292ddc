"""Files that are there in whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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
