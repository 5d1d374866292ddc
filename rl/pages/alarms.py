"""The alarms of a run as its report shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from configs.text import printable
from rl.alarms.records import book_command, read_alarms


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmView:
    """What the report's template shows of an alarm."""

    title: str
    when: str
    over: bool
    evidence: str
    advice: str
    command: str
    rollouts: Sequence[tuple[str, str]]  # (group/sample, address in the book)


def alarm_views(run: Path) -> list[AlarmView]:
    """The alarms of a run: those that stand, then those that are over; the oldest first, which is nearest the cause."""
    rows = read_alarms(run)
    ends = {(row["stage"], row["alarm"], row["since"]): row["step"] for row in rows if row["event"] == "over"}
    views = []
    for row in [row for row in rows if row["event"] == "raised"]:
        stage, step = row["stage"], row["step"]
        end = ends.get((stage, row["alarm"], row["since"]))
        book = quote(f"book-{stage}.html")
        views.append(
            AlarmView(
                title=printable(row["title"]),
                when=printable(f"{stage}, step {step}" + (f", over after step {end}" if end is not None else "")),
                over=end is not None,
                evidence=printable(row["evidence"]),
                advice=printable(row["advice"]),
                command=printable(book_command(run, stage, step)),
                rollouts=[(f"{g}/{s}", f"{book}#step={at}&group={g}&sample={s}") for at, g, s in row["rollouts"]],
            )
        )
    return sorted(views, key=lambda view: view.over)
