"""What a finished run prints: what each stage gained, RL's tasks, where the files are, which commands come next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from configs.files import open_regular
from configs.json_io import read_json
from configs.schema import RunConfig
from configs.text import counted, shorten
from rl.rollout_log import rollout_files
from rl.run.console import PlainConsole
from rl.run.folder import RunFolder, StageRecord
from rl.run.length_plot import shortening_lines
from rl.run.stage_figures import read_stages
from rollouts.workers.quarantine import Quarantine

_HARDEST = 3  # questions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Summary:
    """The part of `summary.json` that is read back."""

    seconds: float
    example: str = ""  # the question about `example.png`


def print_end(folder: RunFolder, config: RunConfig, console: PlainConsole) -> None:
    """Print the figures of a finished run, where its files are, and which commands to try next."""
    _print_stages(folder, console)
    success = [line for stage in config.rl_stages for line in _success_lines(folder.stage(stage.name))]
    for line in [*success, *_quarantine_lines(folder)]:
        console.print(line)
    console.print("\n".join([*_places(folder, config), "try next:", *_next_commands(folder, config)]))


def _print_stages(folder: RunFolder, console: PlainConsole) -> None:
    records, gained = folder.records(), {stage.name: stage.outcome for stage in read_stages(folder)}
    table = Table(
        *("stage", "seconds", "greedy", "sampled", "thinking", "tokens", "what the stage gained"),
        title="held-out tasks",
    )
    for record in records:
        table.add_row(record.name, f"{record.seconds:.0f}", *_cells(record), gained[record.name])
    console.print(table)
    for line in shortening_lines(records):
        console.print(f"  {line}")
    for name, value in records[-1].intervals.items() if records else ():
        console.print(f"  {name}: {value} (95 % interval over {counted(value.tasks, 'task')})")


def _cells(record: StageRecord) -> list[str]:
    """The figures of the held-out tasks; a dash for each where the stage has none."""
    figures = (record.greedy_accuracy, record.sampled_accuracy, record.thinking_share, record.mean_tokens)
    shown = zip(figures, (3, 3, 2, 1), strict=True)
    return ["-" if math.isnan(value) else f"{value:.{digits}f}" for value, digits in shown]


def _success_lines(stage: Path) -> list[str]:
    """Lines about an RL stage's tasks: how many were never or always solved, and the hardest ones."""
    path = stage / "success.json"
    rates = read_json(path, dict[str, dict[str, float]]) if path.exists() else {}
    if not rates:
        return []
    values = [row["success"] for row in rates.values()]
    questions = _questions(stage / "rollouts", list(rates)[:_HARDEST])
    return [
        f"{counted(len(values), 'task')} used in RL: mean success {sum(values) / len(values):.2f}, "
        f"{sum(v == 0 for v in values)} never solved, {sum(v == 1 for v in values)} always; all in {path}",
        *(f"  hardest: {text}; success {rates[task]['success']:.2f}" for task, text in questions.items()),
    ]


def _questions(rollouts: Path, tasks: Sequence[str]) -> dict[str, str]:
    """Each task as a person knows it: question, reference answer, and the newest step that shows it in the book."""
    found: dict[str, str] = {}
    for step, path in reversed(rollout_files(rollouts).items()):
        try:
            with open_regular(path) as file:
                table = pq.read_table(file, columns=["task", "question", "answer"], use_threads=False)
            rows = [row for row in table.to_pylist() if row["task"] in tasks]
        except (OSError, ValueError, KeyError, pa.ArrowException):
            continue  # a damaged file has no say in how a run ends
        for row in rows:
            question, answer = shorten(row["question"], 70), shorten(row["answer"], 30)
            found.setdefault(row["task"], f"{question} (reference {answer}; step {step})")
        if len(found) == len(tasks):
            break
    return {task: found[task] for task in tasks if task in found}


def _quarantine_lines(folder: RunFolder) -> list[str]:
    """The tasks that no worker survived."""
    path = folder.path / "quarantine.json"
    lines = [f"  {line}" for line in Quarantine(path).lines()]
    return [f"{counted(len(lines), 'task')} in quarantine, evidence in {path}:", *lines] if lines else []


def _places(folder: RunFolder, config: RunConfig) -> list[str]:
    path = folder.path
    seconds = read_json(path / "summary.json", _Summary).seconds
    lines = [f"done in {seconds:.0f} s", f"  report    {path / 'report.html'}  (open it in a browser)"]
    lines += [f"  figures   {path / 'summary.json'}", f"  curves    {path / 'curves.png'}"]
    if (path / "lengths.png").exists():
        lines.append(f"  lengths   {path / 'lengths.png'}  (accuracy against tokens)")
    lines.append(f"  stages    {path / 'stages.html'}  (every held-out figure after each stage)")
    lines.append(f"  examples  {path / 'examples.html'}")
    if config.export:
        lines.append(f"  model     {path / 'export'}")
    lines += [f"  rollouts  {rollouts}" for rollouts in _rollout_folders(folder, config)]
    if "tensorboard" in config.trackers:
        lines.append(f"  tensorboard --logdir {path / 'tensorboard'}")
    return lines


def _next_commands(folder: RunFolder, config: RunConfig) -> list[str]:
    """Commands that can be copied as they are: look at the report, at single rollouts, and measure or export."""
    run = shlex.quote(str(folder.path))
    lines = [f"  python -m webbrowser {shlex.quote((folder.path / 'report.html').resolve().as_uri())}"]
    if any(_rollout_folders(folder, config)):
        lines.append(f"  thinkvl book {run}")
    if read_json(folder.path / "summary.json", _Summary).example:
        lines.append(f"  {chat_command(folder.path, folder.path)}")
    lines.append(f"  thinkvl eval {run} --tasks 100" if config.export else f"  thinkvl export {run}")
    return lines


def chat_command(model: Path, run: Path) -> str:
    """The command that asks `model` about the run's example, or without one, about whatever is typed in."""
    command, summary, image = f"thinkvl chat {shlex.quote(str(model))}", run / "summary.json", run / "example.png"
    question = read_json(summary, _Summary).example if summary.is_file() else ""
    if not question or not image.is_file():
        return command
    return f"{command} --image {shlex.quote(str(image))} --question {shlex.quote(question)}"


def _rollout_folders(folder: RunFolder, config: RunConfig) -> list[Path]:
    return [path for stage in config.rl_stages if (path := folder.stage(stage.name) / "rollouts").exists()]
