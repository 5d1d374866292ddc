"""`alarms.jsonl` in a run's folder: a line for each alarm that was raised or is over."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from configs.files import read_bytes, write_text
from configs.text import shorten
from rl.alarms.watch import AlarmEvent

FILE = "alarms.jsonl"
_TEXTS, _NUMBERS = ("stage", "alarm", "event", "title", "evidence", "advice"), ("step", "since")


class AlarmRecords:
    """Writes the alarms of one stage. Two runs of one recipe write the same lines: there is no time in them."""

    def __init__(self, run: Path, stage: str) -> None:
        self._path, self._stage = run / FILE, stage

    def write(self, events: Sequence[AlarmEvent]) -> None:
        """Append the events of a step."""
        if not events:
            return
        with self._path.open("a", encoding="utf-8") as file:
            for event in events:
                rollouts = [[place.step, place.group, place.sample] for place in event.rollouts]
                file.write(json.dumps({"stage": self._stage, **asdict(event), "rollouts": rollouts}) + "\n")

    def forget_after(self, step: int) -> None:
        """Leave out the lines of later steps of the stage: a run that goes on after `step` writes them again."""
        if self._path.exists():
            kept = [row for row in read_alarms(self._path.parent) if row["stage"] != self._stage or row["step"] <= step]
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))


def read_alarms(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's alarms, oldest first; lines that hold anything else are left out."""
    try:
        lines = read_bytes(run / FILE).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    return [row for row in map(_parsed, lines) if row is not None]


def alarm_line(stage: str, event: AlarmEvent, run: Path) -> str:
    """What the terminal says of an event, in a line."""
    where = f"{stage}, step {event.step}"
    if event.event == "over":
        return f"alarm over ({where}): {event.title}, since step {event.since}; {shorten(event.evidence, 300)}"
    shown = ", ".join(f"{place.group}/{place.sample}" for place in event.rollouts)
    look = f"; look: {book_command(run, stage, event.step)}, group/sample {shown}" if shown else ""
    return f"ALARM ({where}): {event.title}: {shorten(event.evidence, 300)}{look}"


def book_command(run: Path, stage: str, step: int) -> str:
    """The command that shows a step's rollouts."""
    return f"thinkvl book {shlex.quote(str(run))} --stage {shlex.quote(stage)} --step {step}"


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    kinds = {**dict.fromkeys(_TEXTS, str), **dict.fromkeys(_NUMBERS, int)}
    if not all(type(row.get(key)) is kind for key, kind in kinds.items()):
        return None
    places = row.get("rollouts")
    whole = isinstance(places, list) and all(
        isinstance(place, list) and len(place) == 3 and all(type(part) is int for part in place) for place in places
    )
    return row if whole else None
