"""What was left out and why: rows that cannot become a task are counted, never silently lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

MAX_EXAMPLES = 3  # named for each reason
MAX_KEPT = 10_000  # remembered for each reason


class SkipReport:
    """Counts of skipped rows for each source and reason, with the first examples."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._examples: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._notes: list[str] = []

    def add(self, source: str, reason: str, example: str) -> None:
        """Count one skipped row; `example` says which one and what it holds, such as `row 7: photo.png`."""
        self._counts[source][reason] += 1
        examples = self._examples[source, reason]
        if len(examples) < MAX_KEPT:
            examples.append(example)

    def note(self, text: str) -> None:
        """Add a line about something that no row is skipped for."""
        self._notes.append(text)

    @property
    def total(self) -> int:
        """Number of skipped rows."""
        return sum(counts.total() for counts in self._counts.values())

    @property
    def by_reason(self) -> dict[str, int]:
        """Skipped rows for each reason, over all sources."""
        return dict(sum(self._counts.values(), Counter()))

    def merge(self, other: SkipReport) -> None:
        """Take over everything that `other` has counted."""
        self._notes += other._notes
        for source, counts in other._counts.items():
            self._counts[source] += counts
            for reason in counts:
                examples = self._examples[source, reason] + other._examples[source, reason]
                self._examples[source, reason] = examples[:MAX_KEPT]

    def rows(self, source: str) -> Iterator[tuple[str, str]]:
        """(reason, example) of every skipped row of a source, up to MAX_KEPT for each reason."""
        for reason in self._counts[source]:
            yield from ((reason, example) for example in self._examples[source, reason])

    def lines(self) -> list[str]:
        """The notes, then one line for each source and reason, most frequent first."""
        lines = list(self._notes)
        for source, counts in self._counts.items():
            for reason, count in counts.most_common():
                examples = self._examples[source, reason][:MAX_EXAMPLES]
                more = ", ..." if count > len(examples) else ""
                lines.append(f"{source}: {count} skipped, {reason} ({'; '.join(examples)}{more})")
        return lines
