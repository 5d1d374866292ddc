"""What a rule found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmFinding:
    """How far the condition of an alarm holds: it is raised at a level of 1, and over below 0.5."""

    level: float
    evidence: str  # the numbers, as a sentence without its full stop
    source: str | None = None  # the data source that it is about


def percent(share: float) -> str:
    """A share as text. Example: `31 %`."""
    return f"{100 * share:.0f} %"
