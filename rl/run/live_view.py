"""What a terminal shows of a stage while it runs: a bar with the time that is left, and a row for each quantity.

The rows are those whose metrics the stage writes; `ROWS` has them all.
"""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from rl.run.eta import Remaining, remaining

_BARS = "▁▂▃▄▅▆▇█"
_LABEL, _WIDEST = 13, 112  # columns of a label, and of the whole view
_BAR = 24  # columns of the bar and of a sparkline; half of it on a narrow terminal


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def _seconds(value: float) -> str:
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


@dataclass(frozen=True, slots=True)
class Row:
    """A quantity with its sparkline, and what stands beside it: (words, metric).

    A metric that ends in `/` stands for all that begin with it, each under the rest of its name. A row without a
    metric of its own has no sparkline.
    """

    label: str
    metric: str
    write: Callable[[float], str] = _number
    unit: str = ""
    beside: tuple[tuple[str, str], ...] = ()
    write_beside: Callable[[float], str] = _percent


ROWS = (
    Row("reward", "reward", beside=(("groups with signal", "signal_share"),)),
    Row(
        "accuracy",
        "accuracy",
        _percent,
        beside=(
            ("validation, greedy", "validation/greedy_accuracy"),
            ("sampled", "validation/sampled_accuracy"),
        ),
    ),
    Row("length", "tokens_mean", unit="tokens", beside=(("thinks", "thinking_share"), ("cut off", "truncated_share"))),
    Row("loss", "loss"),
    Row("pairs right", "preference_accuracy", _percent),
    Row("recall", "batch_recall", _percent),
    Row(
        "step",
        "seconds/step",
        _seconds,
        beside=(
            ("generate", "seconds/generate"),
            ("learner", "seconds/learner"),
            ("weight sync", "seconds/publish"),
            ("driver", "seconds/driver"),
        ),
        write_beside=_seconds,
    ),
    Row("idle", "", beside=(("", "idle/"),)),
    Row("not trained", "", beside=(("", "discarded/"),)),
    Row("tokens/s", "", beside=(("", "tokens_per_second/"),), write_beside=_number),
)


_CURVES = {row.metric for row in ROWS if row.metric}


class LiveView:
    """The view of one stage. `step` takes in a step that is done; Rich draws the view whenever the screen is renewed.

    `where` says which part of a run the stage is, such as `stage 2 of 3`. Without it, as in commands that are no run,
    all values stand in the first line.
    """

    def __init__(
        self,
        title: str,
        *,
        total: int,
        done: int = 0,
        where: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._title, self._total, self._done, self._where, self._clock = title, total, done, where, clock
        self._began = self._last = clock()
        self._durations: list[float] = []
        self._curves: dict[str, list[float]] = defaultdict(list)  # of the rows' own metrics
        self._last_values: dict[str, float] = {}
        self._left: Remaining | None = None
        self._lock = threading.Lock()  # the screen is renewed by a thread
        self.drawn: list[int] = []  # columns of each line of the last drawing

    def step(self, values: Mapping[str, float]) -> None:
        """One step is done; `values` are its metrics."""
        now = self._clock()
        with self._lock:
            self._durations.append(now - self._last)
            self._last, self._done = now, self._done + 1
            self._last_values |= values
            for name in _CURVES & values.keys():
                self._curves[name].append(values[name])
            self._left = remaining(self._durations, self._total - self._done)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The lines that fit: none is wrapped, and the last rows go first."""
        width = min(options.max_width, _WIDEST)
        columns = _BAR if width >= 90 else _BAR // 2
        with self._lock:
            rows = [line for row in ROWS if (line := self._line(row, columns)) is not None]
            lines = [self._heading(), self._progress(columns), *rows][: max(1, options.size.height - 1)]
        for line in lines:
            line.no_wrap = True
            line.truncate(width, overflow="ellipsis")
        self.drawn = [line.cell_len for line in lines]
        yield from lines

    def _heading(self) -> Text:
        others = [] if self._where else [f"{name} {_number(value)}" for name, value in self._last_values.items()]
        return Text("  ").join([Text(self._title, style="bold"), *map(Text, [self._where, *others])])

    def _progress(self, columns: int) -> Text:
        share = min(1.0, self._done / self._total) if self._total else 1.0
        filled = round(share * columns)
        bar = Text.assemble(("━" * filled, "green"), ("╌" * (columns - filled), "dim"))
        now = self._clock()
        parts = [f"{self._done}/{self._total}", f"{duration(now - self._began)} so far"]
        if self._done < self._total:
            parts.append(self._remaining(now - self._last))
        return Text("  ").join([bar, Text("  ".join(parts))])

    def _remaining(self, waited: float) -> str:
        """The time that is left, `waited` seconds after the last step."""
        if self._left is None:
            return "the first steps show how long it takes"
        usual = self._left.middle / (self._total - self._done)
        gone = min(waited, usual)
        low, middle, high = (
            duration(max(0.0, value - gone)) for value in (self._left.low, self._left.middle, self._left.high)
        )
        return f"{middle} left, {low} to {high} in 9 of 10 runs"

    def _line(self, row: Row, columns: int) -> Text | None:
        """A row as a line; None where the stage writes none of its metrics."""
        beside = "  ".join(text for words, metric in row.beside for text in self._beside(row, words, metric))
        label, own = (f"{row.label:<{_LABEL}}", "dim"), self._curves.get(row.metric)
        if own:
            value = f" {f'{row.write(own[-1])} {row.unit}':<13} "
            return Text.assemble(label, (sparkline(own, columns), "cyan"), (value, "bold"), beside)
        return Text.assemble(label, beside) if beside and not row.metric else None

    def _beside(self, row: Row, words: str, metric: str) -> list[str]:
        if not metric.endswith("/"):
            known = metric in self._last_values
            return [f"{words} {row.write_beside(self._last_values[metric])}"] if known else []
        found = {name.removeprefix(metric): v for name, v in self._last_values.items() if name.startswith(metric)}
        return [f"{name} {row.write_beside(value)}" for name, value in found.items()]


def sparkline(values: Sequence[float], width: int) -> str:
    """The values from left to right as bars of eight heights, at most `width`; means where there are more.

    The lowest value has the lowest bar; a value that is not finite leaves a gap.
    """
    size = max(1, math.ceil(len(values) / width))
    means = [_mean(values[at : at + size]) for at in range(0, len(values), size)]
    known = [value for value in means if math.isfinite(value)]
    if not known:
        return " " * width
    low, span = min(known), max(known) - min(known)
    marks = [" " if not math.isfinite(v) else _BARS[round((v - low) / span * 7) if span else 3] for v in means]
    return f"{''.join(marks):<{width}}"


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def duration(seconds: float) -> str:
    """Seconds for people. Example: `41 s`, `3:05 min`, `2:10 h`, `3 d 4 h`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    if whole < 86_400:
        return f"{whole // 3600}:{whole % 3600 // 60:02} h"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"
