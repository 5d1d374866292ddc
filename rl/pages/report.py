"""The report of a run, `report.html`: curves, gains of stages, recipe, environment, alarms; rewritten as it goes."""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.files import read_bytes
from configs.load import dump_recipe, load_recipe
from configs.schema import RunConfig
from configs.text import counted, printable
from rl.pages.alarms import alarm_views
from rl.pages.charts import line_chart
from rl.pages.curves import curves_of, healthy, is_of, lines_of, validation_line
from rl.pages.page import REPORT_SCRIPTS, REPORT_STYLES, write_page
from rl.run.folder import RunFolder
from rl.run.recipe_page import own_rows, shortcomings
from rl.run.stage_figures import read_stages
from rl.run.trackers.jsonl_tracker import read_metrics

PACKAGES = ("thinkvl", "torch", "transformers", "trl", "ray", "peft", "datasets", "sympy")
_PAGES = (
    ("stages.html", "every held-out figure after each stage"),
    ("examples.html", "ten held-out tasks with the model's answers"),
    ("curves.png", "the curves as one picture"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageView:
    """What the report's template shows of a stage."""

    name: str
    kind: str
    state: str
    charts: Sequence[Mapping[str, object]]  # title, healthy, names of lines, picture
    quiet: Sequence[str]  # titles of what should not happen, and did not
    absent: Sequence[str]  # titles of curves that the run has not measured


def write_report(folder: RunFolder) -> Path:
    """Write `report.html` in a run's folder from its recipe, metrics and records; atomic, and cheap while it runs.

    Raises OSError, UserError and ConfigError as the files' readers do.
    """
    config = load_recipe(folder.path / "recipe.yaml")
    metrics: dict[str, list[dict[str, Any]]] = {}
    for row in read_metrics(folder.path / "metrics.jsonl"):
        metrics.setdefault(str(row["stage"]), []).append(row)
    figures = read_stages(folder)
    gains = own_rows([figures]) if figures else []
    rows = {stage.name: metrics.get(stage.name, []) for stage in config.stages}
    finished = (folder.path / "summary.json").exists()
    unmeasured = [line for line in shortcomings([figures]) if "improved its own" not in line] if figures else []
    values = {
        "title": printable(config.name),
        "state": _state(config, metrics, done=[stage.name for stage in figures], finished=finished),
        "gains": [[printable(cell) for cell in row] for row in gains],
        "notes": [printable(line) for line in unmeasured],
        "accuracies": _accuracies(folder),
        "alarms": alarm_views(folder.path, rows),
        "stages": [_stage(folder, stage.name, stage.kind, metrics) for stage in reversed(config.stages)],
        "changes": _changes(folder.path / "changes.jsonl"),
        "recipe": printable(dump_recipe(config), keep="\n"),
        "environment": _environment(metrics),
        "links": _links(folder.path),
        "book": _book_to_write(folder.path),
    }
    path = folder.path / "report.html"
    write_page(path, "report.html.jinja", values, styles=REPORT_STYLES, scripts=("charts.js", *REPORT_SCRIPTS))
    return path


def _state(config: RunConfig, metrics: Mapping[str, Sequence[Any]], *, done: Sequence[str], finished: bool) -> str:
    """Where the run stands, in a sentence."""
    if finished:
        return "The run is finished."
    for stage in config.stages:
        if stage.name not in done:
            rows = metrics.get(stage.name)
            at = f"step {rows[-1]['step']} of {getattr(stage, 'steps', '?')}" if rows else "before its first step"
            return f"Stage {stage.name}, {at}; {len(done)} of {counted(len(config.stages), 'stage')} are done."
    return "All stages are done; the run is being finished."


def _stage(folder: RunFolder, name: str, kind: str, metrics: Mapping[str, Sequence[Any]]) -> StageView:
    rows = metrics.get(name, [])
    charts, quiet, absent = [], [], []
    for curve in curves_of(kind):
        lines = lines_of(curve, rows)
        if curve.title == "Accuracy" and (checks := metrics.get(f"validation/{name}")):
            lines.append(validation_line(checks))
        picture = line_chart(lines, share=curve.share, log=curve.log)
        names = [line.name for line in lines]
        if picture and curve.events and not any(value > 0 for line in lines for value in line.ys):
            quiet.append(curve.title)
        elif picture:
            text = healthy(kind, curve, names)
            charts.append({"title": curve.title, "healthy": text, "names": names, "picture": picture})
        elif is_of(kind, curve):
            absent.append(curve.title)
    done = folder.record(name) is not None
    state = "done" if done else f"step {rows[-1]['step']}" if rows else "not begun"
    return StageView(name=name, kind=kind, state=state, charts=charts, quiet=quiet, absent=absent if rows else [])


def _accuracies(folder: RunFolder) -> list[list[str]]:
    """Held-out accuracy after each stage with its 95 % interval; its head first, empty where no stage has tasks."""
    rows = [
        [
            printable(record.name),
            printable(name),
            f"{found.value:.3f}",
            f"{found.low:.3f} to {found.high:.3f}",
            str(found.tasks),
        ]
        for record in folder.records()
        for name, found in record.intervals.items()
        if not math.isnan(found.value)
    ]
    return [["stage", "held-out accuracy", "value", "95 % interval", "tasks"], *rows] if rows else []


def _changes(path: Path) -> list[list[str]]:
    """What changed in the recipe when the run was resumed: when, key, before, now."""
    try:
        lines = read_bytes(path).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    rows = []
    for line in lines:
        try:
            change = json.loads(line)
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(change["time"])))
            rows += [
                [when, *(printable(_value(part)) for part in (key, *pair))] for key, pair in change["changed"].items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a kill cut the line
    return rows


def _value(part: object) -> str:
    return "null" if part is None else str(part)


def _environment(metrics: Mapping[str, Sequence[Any]]) -> list[tuple[str, str]]:
    times = [row["time"] for rows in metrics.values() for row in rows if isinstance(row.get("time"), int | float)]
    shown = [time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) for at in (min(times), max(times))] if times else []
    return [
        *zip(("first step", "last step"), shown, strict=False),
        ("machine", f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {platform.system()}"),
        ("Python", platform.python_version()),
        *((name, version(name)) for name in PACKAGES),
    ]


def _book_to_write(folder: Path) -> str:
    """The command that shows single rollouts; empty where a book is there, or no rollouts are."""
    if any(folder.glob("book-*.html")) or not any(folder.glob("*/rollouts/*.parquet")):
        return ""
    return printable(f"thinkvl book {shlex.quote(str(folder))}")


def _links(folder: Path) -> list[tuple[str, str]]:
    """The other pages of the run that are there."""
    books = [(path.name, "single rollouts") for path in sorted(folder.glob("book-*.html"))]
    return [*books, *((name, text) for name, text in _PAGES if (folder / name).exists())]
