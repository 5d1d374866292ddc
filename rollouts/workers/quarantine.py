"""Tasks that no worker survives: found by halving, kept with their evidence, and left out from then on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from configs.files import write_text
from configs.json_io import read_json
from configs.text import counted, shorten
from rewards.types import Task

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Failure:
    """How a worker failed while it held requests."""

    kind: Literal["death", "exception", "hang"]
    detail: str  # what happened in a line; then the traceback, or the diagnosis of a hang

    @property
    def headline(self) -> str:
        """The first line."""
        return (self.detail.strip().splitlines() or [self.kind])[0][:300]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Why a task is in quarantine."""

    task: str
    source: str
    question: str
    kind: str
    headline: str
    detail: str
    version: int  # of the policy that was served
    failures: int  # of workers, before the task was found


class Quarantine:
    """The tasks that no request is made for any more. `path` (JSON, written whole at every change) keeps them."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.entries: dict[str, Evidence] = {}
        if path is not None and path.exists():
            self.entries = {row.task: row for row in read_json(path, list[Evidence])}

    def __contains__(self, task_id: str) -> bool:
        return task_id in self.entries

    def __len__(self) -> int:
        return len(self.entries)

    def add(self, task: Task, failure: Failure, *, version: int, failures: int) -> None:
        """Put `task` in quarantine."""
        self.entries[task.id] = Evidence(
            task=task.id,
            source=task.source,
            question=task.question[:500],
            kind=failure.kind,
            headline=failure.headline,
            detail=failure.detail,
            version=version,
            failures=failures,
        )
        if self.path is not None:
            write_text(self.path, json.dumps([asdict(entry) for entry in self.entries.values()], indent=2) + "\n")

    def lines(self) -> list[str]:
        """One line for each task, for people."""
        rows = self.entries.values()
        return [
            f"{shorten(row.question, 100)} ({shorten(row.source, 40)}): {row.kind} of "
            f"{counted(row.failures, 'worker')}; "
            f"{row.headline}"
            for row in rows
        ]


class TooManyCulprits(RuntimeError):
    """More items fail on their own than tasks can be blamed for: the fault is elsewhere."""


def find_culprits(
    items: Sequence[T], attempt: Callable[[Sequence[T]], Failure | None], failure: Failure, *, most: int
) -> dict[int, Failure]:
    """The items that fail alone, by halving a sequence that failed with `failure` as a whole.

    Empty where only the whole fails (too much at once). Raises TooManyCulprits above `most`.
    """
    found: dict[int, Failure] = {}
    suspects = [(list(range(len(items))), failure)]
    while suspects:
        part, failure = suspects.pop()
        if len(part) == 1:
            found[part[0]] = failure
            if len(found) > most:
                raise TooManyCulprits(f"{len(found)} of {len(items)} fail alone; the last: {failure.headline}")
            continue
        middle = len(part) // 2
        for half in (part[middle:], part[:middle]):
            again = attempt([items[i] for i in half])
            if again is not None:
                suspects.append((half, again))
    return dict(sorted(found.items()))
