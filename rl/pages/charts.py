"""Curves as inline SVG: axes with round numbers, a band where a value has one, and the numbers for the pointer."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 420, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 24
_MOST_POINTS = 300  # of a line; more are averaged
_SMOOTHED_FROM = 30  # points; a mean over neighbours is drawn above longer lines
COLOURS = 6  # classes c0 to c5 of the style sheet


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve; points without a value are NaN. `low` and `high` are the ends of a band around it."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    marked: bool = False  # a dot at each point, for values that are measured now and then

    @property
    def known(self) -> bool:
        """Whether the curve has a point at all."""
        return any(math.isfinite(y) for y in self.ys)


def line_chart(lines: Sequence[Line], *, share: bool = False, log: bool = False) -> Markup:
    """The curves in one frame, each in a colour of its own. `share`: an axis from 0 to 1; `log`: powers of ten."""
    lines = [_thinned(line) for line in lines if line.known]
    if not lines:
        return Markup("")
    xs = [x for line in lines for x in line.xs]
    ys = [y for line in lines for y in (*line.ys, *line.low, *line.high) if math.isfinite(y)]
    log = log and min(ys) > 0 and max(ys) > 30 * min(ys)
    bottom, top = _range(ys, share=share, log=log)
    to_x = _scale(min(xs), max(xs), _LEFT, WIDTH - _RIGHT)
    change = math.log10 if log else float
    inner = _scale(change(bottom), change(top), HEIGHT - _BOTTOM, _TOP)

    def to_y(value: float) -> float:
        return inner(change(min(max(value, bottom), top)))

    parts = [_axes(_ticks(min(xs), max(xs), 5), _log_ticks(bottom, top) if log else _ticks(bottom, top, 4), to_x, to_y)]
    parts += [_drawn(line, f"c{at % COLOURS}", to_x, to_y) for at, line in enumerate(lines)]
    points = json.dumps([[line.name, _rounded(line.xs), _rounded(line.ys)] for line in lines])
    frame = f"viewBox='0 0 {WIDTH} {HEIGHT}' data-left='{_LEFT}' data-right='{WIDTH - _RIGHT}'"
    return Markup(f"<svg class='chart' role='img' {frame} data-lines='{escape(points)}'>{''.join(parts)}</svg>")


def _drawn(line: Line, colour: str, to_x: Callable[[float], float], to_y: Callable[[float], float]) -> str:
    """The band, the line, its smoothed form and its dots."""
    points = [(to_x(x), to_y(y)) for x, y in zip(line.xs, line.ys, strict=True) if math.isfinite(y)]
    parts = []
    if line.low and line.high:
        ends = [(x, a, b) for x, a, b in zip(line.xs, line.low, line.high, strict=True) if math.isfinite(a + b)]
        upper = [(to_x(x), to_y(high)) for x, _, high in ends]
        lower = [(to_x(x), to_y(low)) for x, low, _ in reversed(ends)]
        parts.append(f"<path class='band {colour}' d='{_path([*upper, *lower])}Z'/>")
    noisy = len(points) >= _SMOOTHED_FROM and not line.marked
    parts.append(f"<path class='line {colour}{' raw' if noisy else ''}' d='{_path(points)}'/>")
    if noisy:
        smooth = _smoothed([y for _, y in points])
        parts.append(
            f"<path class='line {colour}' d='{_path([(x, y) for (x, _), y in zip(points, smooth, strict=True)])}'/>"
        )
    if line.marked or len(points) == 1:
        parts += [f"<circle class='{colour}' cx='{x:.1f}' cy='{y:.1f}' r='2.5'/>" for x, y in points]
    return "".join(parts)


def _axes(
    xticks: Sequence[float], yticks: Sequence[float], to_x: Callable[[float], float], to_y: Callable[[float], float]
) -> str:
    parts = []
    for value in yticks:
        y = to_y(value)
        parts.append(f"<line x1='{_LEFT}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}'/>")
        parts.append(f"<text x='{_LEFT - 6}' y='{y + 4:.1f}' text-anchor='end'>{_short(value)}</text>")
    for value in xticks:
        parts.append(f"<text x='{to_x(value):.1f}' y='{HEIGHT - 6}' text-anchor='middle'>{_short(value)}</text>")
    return "".join(parts)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) if points else ""


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """From [low, high] to [start, end]; a single value stands in the middle."""
    if high == low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _range(ys: Sequence[float], *, share: bool, log: bool) -> tuple[float, float]:
    """The ends of the vertical axis: 0 and 1 for shares, else round numbers around the values."""
    low, high = min(ys), max(ys)
    if log:
        return 10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high))
    if share and low >= 0 and high <= 1 and high > 0.3:
        return 0.0, 1.0
    if low >= 0 and low < high / 2:
        low = 0.0
    if low == high:
        low, high = (0.0, 1.0) if low == 0 else (low - abs(low) / 2, high + abs(high) / 2)
    step = _step(high - low, 4)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def _step(length: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten that cuts `length` into at most `most` pieces."""
    rough = length / most
    power = 10 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))


def _ticks(low: float, high: float, most: int) -> list[float]:
    if low == high:
        return [low]
    step = _step(high - low, most)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{at * step:.6g}") for at in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(round(math.log10(low)), round(math.log10(high)) + 1)
    return [10.0**at for at in powers][:: max(1, len(powers) // 5)]


def _short(value: float) -> str:
    """A number of an axis: 12k, 3M, 0.05."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    return "0" if abs(value) < 1e-12 else f"{value:g}"


def _thinned(line: Line) -> Line:
    """A long line with the means of neighbours, so that a page of a run of any length stays small."""
    size = -(-len(line.xs) // _MOST_POINTS)
    if size <= 1:
        return line
    columns = (line.xs, line.ys, line.low, line.high)
    xs, ys, low, high = ([_mean(c[at : at + size]) for at in range(0, len(c), size)] for c in columns)
    return Line(name=line.name, xs=xs, ys=ys, low=low, high=high, marked=line.marked)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else math.nan


def _smoothed(values: Sequence[float]) -> list[float]:
    """The mean over a window of a fifteenth of the line around each point."""
    reach = max(1, len(values) // 30)
    return [_mean(values[max(0, at - reach) : at + reach + 1]) for at in range(len(values))]


def _rounded(values: Sequence[float]) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
