"""Checkpoints that survive a kill at any moment: written to a temporary name, fsynced, renamed."""

from __future__ import annotations

import json
import os
import random
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from configs.errors import UserError
from configs.files import atomic_write, write_text
from configs.json_io import read_json
from rl.safe_load import load_state

_PART = 2**24  # bytes of a file that are read at once


class CheckpointError(UserError):
    """No checkpoint could be read; the message names the files and what to do."""


def save_checkpoint(
    folder: Path, step: int, state: dict[str, Any], *, keep: int = 2, shards: Path | None = None
) -> Path:
    """Write `state` as `folder/step-NNNNNN.pt` and delete all but the newest `keep`.

    The folder `shards`, which a learner on several ranks wrote, becomes part of it. A full disk raises OSError and
    leaves the older checkpoints as they are.
    """
    if shards is not None:
        state = {**state, "shards": _noted_checksums(shards)}
        replace_folder(shards, shards_of(folder, step))
    path = folder / f"step-{step:06d}.pt"
    with atomic_write(path) as file:
        _save({"step": step, **state}, file)
    sync_folder(folder)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    _remove_left_over_shards(folder)
    return path


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    """`torch.save`, whose writer hides the system's error behind one of its own when it closes the file."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from error
        raise


def shards_of(folder: Path, step: int) -> Path:
    """Where the learner's shards of a checkpoint lie, if it has any."""
    return folder / f"step-{step:06d}.shards"


def fresh_shards(folder: Path, step: int) -> Path:
    """Where a learner writes its shards; `save_checkpoint` then renames the folder."""
    return folder / f"step-{step:06d}.shards.partial"


def note_checksums(shards: Path, rank: int, files: Iterable[Path]) -> None:
    """Write the checksums of the files of a checkpoint that `rank` wrote, each rank its own: they are still in memory.

    `save_checkpoint` puts them into the checkpoint.
    """
    write_text(shards / f"checksums-{rank}.json", json.dumps({file.name: _checksum(file) for file in sorted(files)}))


def _checksum(file: Path) -> str:
    import xxhash  # a learner runs without it where it writes no shards

    digest = xxhash.xxh3_128()
    with file.open("rb") as data:
        while part := data.read(_PART):
            digest.update(part)
    return digest.hexdigest()


def _noted_checksums(shards: Path) -> dict[str, str]:
    noted: dict[str, str] = {}
    for file in shards.glob("checksums-*.json"):
        noted |= read_json(file, dict[str, str])
    return noted


def _check_shards(shards: Path, noted: Mapping[str, str]) -> None:
    """Raise OSError with the names of the files that are missing, or hold other bytes than were written."""
    wrong = [n for n, known in noted.items() if not (shards / n).is_file() or _checksum(shards / n) != known]
    if wrong or not noted:
        raise OSError(f"{shards}: {', '.join(wrong) or 'the list of its files'} not as it was written")


def _remove_left_over_shards(folder: Path) -> None:
    """Shards whose checkpoint is gone, or was never finished."""
    kept = {path.stem for path in list_checkpoints(folder)}
    for shards in folder.glob("step-*.shards*"):
        if shards.suffix != ".shards" or shards.stem not in kept:
            shutil.rmtree(shards)


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that can be read (None if there is none at all), and a line for each that could not.

    Raises CheckpointError if there are checkpoints but every one is damaged.
    """
    problems: list[str] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            with zipfile.ZipFile(path) as archive:
                if (part := archive.testzip()) is not None:  # torch.load does not look at the checksums
                    raise zipfile.BadZipFile(f"wrong checksum of {part}")
            state = load_state(path)
            if not isinstance(state, dict) or path.name != f"step-{state.get('step'):06d}.pt":
                raise ValueError("it holds no checkpoint of that step")
            if "shards" in state:
                _check_shards(shards_of(folder, state["step"]), state["shards"])
            return state, problems
        except Exception as error:  # a cut or damaged file fails in many ways: zip, pickle, EOF, ...
            problems.append(f"{path} cannot be read ({type(error).__name__}: {error}); trying the one before")
    if problems:
        listing = "\n  ".join(problems)
        raise CheckpointError(
            f"no checkpoint in {folder} can be read:\n  {listing}\nDelete them to start RL from its beginning."
        )
    return None, []


def random_state() -> dict[str, Any]:
    """The state of every global random generator that training uses."""
    return {"python": random.getstate(), "numpy": np.random.get_state(), "torch": torch.get_rng_state()}


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo what happened since `random_state()`."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])


def replace_folder(partial: Path, final: Path) -> None:
    """Put a finished folder in place of `final` by renames, so that readers see the old or the new one."""
    old = final.with_name(final.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    partial.rename(final)
    sync_folder(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
