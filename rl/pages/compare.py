"""Runs side by side in one HTML file: curves, final figures with intervals, and where the recipes differ."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.schema import RunConfig
from configs.text import counted, printable
from rl.pages.charts import Line, line_chart
from rl.pages.curves import VALIDATION_CURVES, Curve, curves_of, healthy, values
from rl.pages.page import REPORT_SCRIPTS, REPORT_STYLES, write_page
from rl.run.folder import StageRecord
from rl.run.recipe_changes import differences, written

_FREE = ("seed", "output_dir", "name")  # runs that differ in nothing else are seeds of one recipe
_MOST_SOURCES = 4  # charts of one curve that has a line for each source

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """What is read of a run's folder."""

    name: str
    config: RunConfig
    metrics: Mapping[str, Rows]  # by stage
    records: Mapping[str, StageRecord]  # of the stages that are done
    finished: bool

    @property
    def state(self) -> str:
        """Where the run stands."""
        if self.finished:
            return "finished"
        going = [stage.name for stage in self.config.stages if self.metrics.get(stage.name)]
        return f"in {going[-1]}, step {self.metrics[going[-1]][-1]['step']}" if going else "no step yet"


def group_by_recipe(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """The runs in their order; those that differ in the seed only are together."""
    groups: list[list[ComparedRun]] = []
    for run in runs:
        same = [group for group in groups if not _differences(group[0], run)]
        if same:
            same[0].append(run)
        else:
            groups.append([run])
    return groups


def title_of(group: Sequence[ComparedRun]) -> str:
    """The name of a line: the run's, and how many seeds it stands for."""
    return group[0].name if len(group) == 1 else f"{group[0].name} and {counted(len(group) - 1, 'more seed')}"


def recipe_rows(groups: Sequence[Sequence[ComparedRun]]) -> list[list[str]]:
    """The keys in which the recipes differ, with the value of each; the head first. Empty where they do not."""
    found = [_differences(groups[0][0], group[0]) for group in groups]
    keys = sorted({key for one in found for key in one})
    first = {key: one[key][0] for one in found for key in one}
    rows = [[key, *(_cell(one[key][1] if key in one else first[key]) for one in found)] for key in keys]
    return [["key", *map(title_of, groups)], *rows] if rows else []


def figure_rows(groups: Sequence[Sequence[ComparedRun]]) -> list[list[str]]:
    """The held-out accuracies after each stage; the head first, empty where no run has finished a stage with tasks.

    Of one run with its 95 % interval over the tasks, of several seeds their mean and range.
    """
    keys = dict.fromkeys(
        (stage, name)
        for group in groups
        for run in group
        for stage, record in run.records.items()
        for name, found in record.intervals.items()
        if not math.isnan(found.value)
    )
    rows = [[stage, name, *(_figure(group, stage, name) for group in groups)] for stage, name in keys]
    return [["stage", "held-out accuracy", *map(title_of, groups)], *rows] if rows else []


def write_comparison(groups: Sequence[Sequence[ComparedRun]], path: Path) -> None:
    """Write the page. Raises OSError."""
    kinds = {stage.name: stage.kind for group in groups for run in group for stage in run.config.stages}
    runs = [[title_of(group), run.name, str(run.config.seed), run.state] for group in groups for run in group]
    page = {
        "title": printable(", ".join(title_of(group) for group in groups)[:120]),
        "names": [printable(title_of(group)) for group in groups],
        "runs": _harmless([["line", "run", "seed", "state"], *runs]),
        "figures": _harmless(figure_rows(groups)),
        "recipe": _harmless(recipe_rows(groups)),
        "bands": any(len(group) > 1 for group in groups),
        "stages": [(name, charts) for name, kind in kinds.items() if (charts := _charts(groups, name, kind))],
    }
    write_page(path, "compare.html.jinja", page, styles=REPORT_STYLES, scripts=("charts.js", *REPORT_SCRIPTS))


def _charts(groups: Sequence[Sequence[ComparedRun]], stage: str, kind: str) -> list[dict[str, object]]:
    """A chart for each metric that at least one run has written; those of the validation tasks first."""
    charts = []
    checks = [(f"validation/{stage}", curve) for curve in VALIDATION_CURVES]
    for rows, curve in [*checks, *((stage, curve) for curve in curves_of(kind))]:
        for metric in _metrics(groups, rows, curve):
            lines = [line_of(group, rows, metric) for group in groups]
            picture = line_chart(lines, share=curve.share, log=curve.log)
            if picture:
                shown = [(at % 6, printable(line.name)) for at, line in enumerate(line for line in lines if line.known)]
                title = curve.title if len(curve.metrics) == 1 and metric in curve.metrics else metric
                charts.append(
                    {"title": printable(title), "names": shown, "picture": picture, "healthy": healthy(kind, curve)}
                )
    return charts


def line_of(group: Sequence[ComparedRun], stage: str, metric: str) -> Line:
    """The mean over a group's runs at each step that one of them has reached; the band is from lowest to highest."""
    by_step: dict[int, list[float]] = {}
    for run in group:
        rows = run.metrics.get(stage, ())
        for row, value in zip(rows, values(rows, metric), strict=True):
            by_step.setdefault(row["step"], []).extend([value] if math.isfinite(value) else [])
    steps = sorted(by_step)
    known = [by_step[step] for step in steps]

    def each(function: Any) -> list[float]:
        return [function(found) if found else math.nan for found in known]

    low, high = (each(min), each(max)) if len(group) > 1 else ((), ())
    xs = [float(step) for step in steps]
    return Line(name=title_of(group), xs=xs, ys=each(statistics.fmean), low=low, high=high)


def _metrics(groups: Sequence[Sequence[ComparedRun]], stage: str, curve: Curve) -> list[str]:
    written = dict.fromkeys(
        name for group in groups for run in group for row in run.metrics.get(stage, ()) for name in row
    )
    found = []
    for metric in curve.metrics:
        own = [name for name in written if name == metric or (metric.endswith("/") and name.startswith(metric))]
        found += own[:_MOST_SOURCES]
    return found


def _figure(group: Sequence[ComparedRun], stage: str, name: str) -> str:
    found = [run.records[stage].intervals.get(name) for run in group if stage in run.records]
    known = [one for one in found if one is not None and not math.isnan(one.value)]
    if not known:
        return "-"
    if len(known) == 1:
        return str(known[0])
    own = [one.value for one in known]
    return f"{statistics.fmean(own):.3f} ({min(own):.3f} to {max(own):.3f}, {len(own)} seeds)"


def _cell(value: object) -> str:
    return value if isinstance(value, str) else written(value)


def _differences(first: ComparedRun, second: ComparedRun) -> dict[str, tuple[object, object]]:
    return {key: pair for key, pair in differences(first.config, second.config).items() if key not in _FREE}


def _harmless(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[printable(cell) for cell in row] for row in rows]
