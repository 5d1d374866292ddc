"""`thinkvl doctor`: checks a machine before a run, or a run that is going, stuck or dead."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from configs.errors import UserError
from configs.load import load_recipe
from configs.text import counted, shorten
from rl.alarms.records import read_alarms
from rl.doctor.machine import Machine
from rl.doctor.run_facts import RunFacts, read_run
from rl.doctor.stacks import dump
from rl.doctor.table import Checked, check_machine, check_run
from rl.run.console import PlainConsole

_STYLES = {"ok": "green", "warning": "yellow", "fault": "bold red"}
_EVENTS = 6
_DUMPED = 4  # processes whose stacks are shown


def doctor_command(
    what: str | None, overrides: Sequence[str], *, push: bool, as_json: bool, console: PlainConsole
) -> int:
    """Check this machine, for the recipe `what` if it is a YAML file, or the run in the folder `what`.

    The exit code: 1 where there is a fault, else 0. Raises ConfigError or UserError for neither recipe nor run.
    """
    began = time.monotonic()
    run = None
    if what is not None and Path(what).suffix not in (".yaml", ".yml"):
        if overrides:
            raise UserError(f"{' '.join(overrides)}: only a recipe takes changes, and {what} is none")
        run = read_run(what)
        checked = check_run(run)
    else:
        checked = check_machine(_machine(what, overrides, push=push))
    if as_json:
        print(json.dumps([{"check": one.name, **asdict(one.finding)} for one in checked], indent=1))
    else:
        _show(checked, run, console)
        console.print(f"{counted(len(checked), 'check')} in {time.monotonic() - began:.1f} s")
    return int(any(one.finding.level == "fault" for one in checked))


def _machine(recipe: str | None, overrides: Sequence[str], *, push: bool) -> Machine:
    if recipe is None:
        return Machine(push=push)
    config = load_recipe(Path(recipe), overrides)
    return Machine(config=config, output=Path(config.output_dir), push=push)


def _show(checked: Sequence[Checked], run: RunFacts | None, console: PlainConsole) -> None:
    table = Table(box=SIMPLE_HEAD, padding=0, show_edge=False)
    for column in ("check", "", "found", "allowed"):
        table.add_column(column, overflow="fold")
    for one in checked:
        finding = one.finding
        table.add_row(one.name, Text(finding.level, style=_STYLES[finding.level]), finding.value, finding.allowed)
    console.print(table)
    if run is not None:
        _show_run(run, console)
    sick = sorted((one for one in checked if one.finding.level != "ok"), key=lambda one: one.finding.level)
    if sick and run is not None and sick[0].finding.level == "fault":
        console.print(f"likely cause: {sick[0].name}: {sick[0].finding.value}")
    for one in sick:
        console.print(f"{one.finding.level}: {one.name}: {one.finding.fix}")


def _show_run(run: RunFacts, console: PlainConsole) -> None:
    """The last events of a run, and the stacks of its processes where it runs."""
    for line in _events(run):
        console.print(line)
    if not run.locked:
        return
    pids = [process for process in run.processes if process.python or process.name.startswith("ray::")]
    for process in pids[:_DUMPED]:
        console.print(f"{process.name} (process {process.pid}, {process.state}):")
        console.print(f"{dump(process.pid)[0].strip()}\n")
    if len(pids) > _DUMPED:
        others = ", ".join(f"{process.name} {process.pid}" for process in pids[_DUMPED:])
        console.print(f"without stacks here: {shorten(others)}; py-spy dump --pid PID shows them")


def _events(run: RunFacts) -> list[str]:
    """The latest things that the folder records, oldest first."""
    events = [(row["time"], _metrics_line(row)) for row in run.rows[-3:] if isinstance(row.get("time"), int | float)]
    events += [(file.stat().st_mtime, f"worker failed: {file.name}") for file in run.failures[-3:]]
    if run.end is not None:
        events.append((run.end.time, f"command {run.end.state} (process {run.end.pid}) {run.end.error}".rstrip()))
    lines = [
        f"{time.strftime('%d %b %H:%M:%S', time.localtime(when))}  {shorten(text)}" for when, text in sorted(events)
    ][-_EVENTS:]
    lines += [f"alarm {row['event']}, step {row['step']}: {row['title']}" for row in read_alarms(run.folder)[-2:]]
    return ["last events:", *(f"  {line}" for line in lines)] if lines else []


def _metrics_line(row: object) -> str:
    """A step with its first figures."""
    facts = dict(row) if isinstance(row, dict) else {}
    shown = [
        f"{name} {facts[name]:.3g}"
        for name in ("loss", "reward_mean", "grad_norm")
        if isinstance(facts.get(name), int | float)
    ]
    return f"{facts.get('stage')}, step {facts.get('step')}: {', '.join(shown)}"
