"""The alarms of a run as its report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from configs.text import printable
from rl.alarms.records import book_command, read_alarms
from rl.alarms.supervised import supervised_alarms


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


def alarm_views(run: Path, stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[AlarmView]:
    """The alarms of a run: those that stand, then those that are over; the oldest first, which is nearest the cause.

    `stages` are the metrics of each stage.
    """
    rows = [*(row for stage, own in stages.items() for row in supervised_alarms(stage, own)), *read_alarms(run)]
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
