"""A progress bar with an ETA, or plain lines if the output is not a terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from rl.run.console import PlainConsole

_LINE_SECONDS = 10.0  # without a terminal, at most one line in so many seconds


class StageProgress:
    """Progress of one stage: `with StageProgress(console, "RL", total=80) as bar: bar.advance({"reward": 0.5})`."""

    def __init__(self, console: PlainConsole, title: str, *, total: int, done: int = 0) -> None:
        self._console, self._title, self._total, self._done = console, title, total, done
        self._began, self._first, self._last_line = 0.0, done, 0.0
        self._bar = Progress(
            TextColumn("{task.description:<12}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("eta"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def __enter__(self) -> StageProgress:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()

    def advance(self, values: Mapping[str, float]) -> None:
        """One step is done; `values` are shown beside the bar."""
        self._done += 1
        if not self._began:  # what comes before the first step is no measure of a step
            self._began, self._first = time.monotonic(), self._done
        note = "  ".join(f"{name} {value:.3g}" for name, value in values.items())
        self._bar.update(self._task, advance=1, note=note)
        now = time.monotonic()
        if self._console.is_terminal or (now - self._last_line < _LINE_SECONDS and self._done < self._total):
            return
        self._last_line = now
        eta = ""
        if self._done > self._first:
            eta = f"eta {(now - self._began) / (self._done - self._first) * (self._total - self._done):.0f} s"
        self._console.print(
            f"{self._title:<12} {self._done}/{self._total}  {eta:<10} {note}", highlight=False, soft_wrap=True
        )
