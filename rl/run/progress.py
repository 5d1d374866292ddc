"""Progress of a long piece of work: a view that is renewed on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.live import Live
from rich.text import Text

from rl.run.console import PlainConsole
from rl.run.live_view import LiveView, duration

_LINE_SECONDS = 10.0  # without a terminal, at most one line in so many seconds
_RENEWALS = 2  # of the view, a second


class StageProgress:
    """Progress of one stage: `with StageProgress(console, "RL", total=80) as bar: bar.advance({"reward": 0.5})`.

    Plain lines show the values named in `shown`, or all. `where` says on a terminal which part of a run the stage is.
    """

    def __init__(
        self,
        console: PlainConsole,
        title: str,
        *,
        total: int,
        done: int = 0,
        shown: Sequence[str] | None = None,
        where: str = "",
    ) -> None:
        self._reader = (
            _Screen(console, LiveView(title, total=total, done=done, where=where))
            if console.can_redraw
            else _PlainLines(console, title, total=total, done=done, shown=shown)
        )

    def __enter__(self) -> StageProgress:
        """Show the view."""
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the view as it stands."""
        self._reader.stop()

    def advance(self, values: Mapping[str, float]) -> None:
        """One step is done; `values` are its metrics."""
        self._reader.step(values)


@contextmanager
def working(console: PlainConsole, what: str) -> Iterator[None]:
    """Within the block a terminal says at its foot what is going on, and for how long; elsewhere nothing is written.

    Not around a `StageProgress`, which has the foot for itself.
    """
    if not console.can_redraw:
        yield
        return
    others = console.file is sys.stdout
    with Live(
        _Doing(what),
        console=console,
        transient=True,
        refresh_per_second=_RENEWALS,
        redirect_stdout=others,
        redirect_stderr=others,
    ):
        yield


class _Doing:
    """One line: what is going on, and since when."""

    def __init__(self, what: str) -> None:
        self._what, self._began = what, time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        seconds = duration(time.monotonic() - self._began)
        line = Text(f"{self._what} ... {seconds}", style="dim", no_wrap=True)
        line.truncate(options.max_width, overflow="ellipsis")
        yield line


class _PlainLines:
    """A line for a step, at most every ten seconds."""

    def __init__(
        self, console: PlainConsole, title: str, *, total: int, done: int, shown: Sequence[str] | None
    ) -> None:
        self._console, self._title, self._total, self._done, self._shown = console, title, total, done, shown
        self._began, self._first, self._last_line = 0.0, done, 0.0

    def start(self) -> None:
        """The first line comes with the first step."""

    def stop(self) -> None:
        """Every line is printed already."""

    def step(self, values: Mapping[str, float]) -> None:
        """Count a step and print its line, if it is time."""
        self._done += 1
        now = time.monotonic()
        if not self._began:  # what comes before the first step is no measure of a step
            self._began, self._first = now, self._done
        if now - self._last_line < _LINE_SECONDS and self._done < self._total:
            return
        self._last_line = now
        names = values if self._shown is None else [name for name in self._shown if name in values]
        note = "  ".join(f"{name} {values[name]:.3g}" for name in names)
        eta = ""
        if self._done > self._first:
            eta = f"eta {(now - self._began) / (self._done - self._first) * (self._total - self._done):.0f} s"
        self._console.print(
            f"{self._title:<12} {self._done}/{self._total}  {eta:<10} {note}", highlight=False, soft_wrap=True
        )


class _Screen(Live):
    """A stage's view at the foot of the terminal; what the console prints scrolls above it."""

    def __init__(self, console: PlainConsole, view: LiveView) -> None:
        others = console.file is sys.stdout  # a run sends the output of libraries elsewhere: `rl.run.own_screen`
        super().__init__(
            view, console=console, refresh_per_second=_RENEWALS, redirect_stdout=others, redirect_stderr=others
        )
        self._view = view
        self.step = view.step

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Draw the view below what is printed.

        A terminal that became narrower has wrapped the lines of the last drawing: all of it is to be erased.
        """
        if self._live_render.last_render_height:
            rows = sum(max(1, math.ceil(columns / self.console.width)) for columns in self._view.drawn)
            self._live_render._shape = (0, rows)
        return super().process_renderables(renderables)
