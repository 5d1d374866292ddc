"""Counts the tasks that are left out by reason, for a table and a JSON file."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from rl.run.console import PlainConsole
from rl.run.folder import write_json

UNJUDGED = "no sample has a verdict"
OVER_LEVEL = "over the share of its level"
_EXAMPLES = 3  # task ids that are named for each reason
_ROWS, _WIDTH = 20, 48  # of a table


class Report:
    """Counts of what was left out, in order of the first occurrence of each reason."""

    def __init__(self, read: int) -> None:
        self.read = read
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = defaultdict(list)

    def leave_out(self, reason: str, example: str) -> None:
        """Count a task, or a sample, that is left out."""
        self._counts[reason] += 1
        if len(self._examples[reason]) < _EXAMPLES:
            self._examples[reason].append(example)

    @property
    def counts(self) -> dict[str, int]:
        """Reason -> how many."""
        return dict(self._counts)

    def reasons(self) -> str:
        """Example: `multiple choice (12), image cannot be read (1)`."""
        return ", ".join(f"{reason} ({count})" for reason, count in self._counts.items()) or "there was none"

    def as_json(self) -> dict[str, Any]:
        """The report as JSON values: what was read, and what was left out with the first examples."""
        left_out = {
            reason: {"count": count, "examples": self._examples[reason]} for reason, count in self._counts.items()
        }
        return {"read": self.read, "left_out": left_out}


def write_report(output: Path, values: Mapping[str, Any]) -> Path:
    """Write `NAME.report.json` beside the output and return its path."""
    path = output.with_suffix(".report.json")
    write_json(path, values)
    return path


def print_counts(console: PlainConsole, title: str, counts: Mapping[str, int]) -> None:
    """Print a table of names and counts, cut to the first ones; nothing if it is empty."""
    if not counts:
        return
    table = Table(title, Column("count", justify="right"), min_width=_WIDTH)
    for name, count in list(counts.items())[:_ROWS]:
        table.add_row(name, f"{count:,}")
    if len(counts) > _ROWS:
        table.add_row(f"{len(counts) - _ROWS:,} more", "")
    console.print(table)
