"""Hashes of what tasks are made of, by which a resumed run knows that its data are still the same (XXH3, 128 bits)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import xxhash

from rollouts.tasks.documents import Example


def contents_hash(path: Path) -> str:
    """The hash of a file's bytes, as hex digits; it reads them once, at the speed of the disk."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


class TaskHash:
    """The hash of tasks or documents in their order, with the bytes of their images, wherever these came from."""

    def __init__(self) -> None:
        self._digest, self._count = xxhash.xxh3_128(), 0

    def add(self, task: Example) -> None:
        """Take in one task or document."""
        fields = {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}
        fields["images"] = [len(image) for image in task.images]
        self._digest.update(repr(fields).encode())
        for image in task.images:
            self._digest.update(image)
        self._count += 1

    def contents(self) -> dict[str, int | str]:
        """How many tasks there were, and their hash."""
        return {"tasks": self._count, "xxh3_128": self._digest.hexdigest()}
