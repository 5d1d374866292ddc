"""Checkpoints of supervised stages: Trainer writes them; a file of checksums, written last, says they are whole."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import xxhash

from configs.errors import UserError
from configs.json_io import read_json
from rl.checkpoint import sync_folder
from rl.run.folder import write_json

_CHECKSUMS = "checksums.json"


def seal_checkpoint(folder: Path) -> None:
    """Mark a checkpoint as whole, and delete the older ones beside it. A full disk raises OSError and deletes none."""
    write_json(folder / _CHECKSUMS, _checksums(folder))
    sync_folder(folder.parent)
    for path in _checkpoints(folder.parent):
        if path != folder:
            shutil.rmtree(path)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose files are those that were written; others are named and deleted."""
    for path in reversed(_checkpoints(folder)):
        if _is_whole(path):
            return path
        logging.getLogger(__name__).warning(
            "%s was not written to its end, or is damaged: the one before it is taken", path
        )
        shutil.rmtree(path)
    return None


def _checkpoints(folder: Path) -> list[Path]:
    """Oldest first."""
    numbered = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name.rpartition("-")[2]))


def _is_whole(folder: Path) -> bool:
    try:
        return read_json(folder / _CHECKSUMS, dict[str, str]) == _checksums(folder)
    except (OSError, UserError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    """XXH3 of each file, by name."""
    found = {}
    for path in sorted(path for path in folder.iterdir() if path.is_file() and path.name != _CHECKSUMS):
        digest = xxhash.xxh3_128()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        found[path.name] = digest.hexdigest()
    return found
