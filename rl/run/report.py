"""The end of a run: `summary.json`, curves (PNG), pages of the stages and of examples, a table.

The report that is rewritten as the run goes is `rl.pages.report`.
"""

from __future__ import annotations

import base64
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from configs.json_io import read_json
from configs.schema import RunConfig
from configs.text import printable, shorten
from rl.pages.page import REPORT_SCRIPTS, REPORT_STYLES, render_page
from rl.pages.report import PACKAGES
from rl.run.console import PlainConsole
from rl.run.folder import RunFolder, StageRecord, write_json
from rl.run.length_plot import plot_lengths, shortening_lines
from rl.run.recipe_page import write_recipe_page
from rl.run.trackers.jsonl_tracker import read_metrics
from rollouts.types import ScoredRollout
from rollouts.workers.quarantine import Quarantine

_EXAMPLES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Summary:
    """The part of `summary.json` that is read back."""

    seconds: float


def finish_run(
    folder: RunFolder,
    config: RunConfig,
    answers: Sequence[ScoredRollout],
    *,
    seconds: float,
    console: PlainConsole,
) -> None:
    """Write the summary, curves and examples, and print where they are and which commands to try next.

    `answers` are the final model's greedy answers to the held-out tasks; `seconds` is this invocation's wall clock.
    """
    records = folder.records()
    summary = {
        "name": config.name,
        "seed": config.seed,
        "seconds": round(seconds, 1),
        "stages": [asdict(r) for r in records],
        "versions": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "machine": platform.processor() or platform.machine(),
    }
    plot_curves(folder, records, folder.path / "curves.png", rl_stages=[stage.name for stage in config.rl_stages])
    if shortening_lines(records):
        plot_lengths(records, folder.path / "lengths.png")
    write_recipe_page([folder], folder.path / "stages.html")
    chosen = choose_examples(answers, _EXAMPLES)
    (folder.path / "examples.html").write_text(examples_page(chosen, title=config.name), encoding="utf-8")
    write_json(folder.path / "summary.json", summary)  # last: it says that the run is finished
    _print_examples(chosen, console)
    print_end(folder, config, console)


def print_end(folder: RunFolder, config: RunConfig, console: PlainConsole) -> None:
    """Print the figures of a finished run, where its files are, and which commands to try next."""
    _print_table(folder.records(), console)
    success = [line for stage in config.rl_stages for line in _success_lines(folder.stage(stage.name) / "success.json")]
    for line in [*success, *_quarantine_lines(folder)]:
        console.print(line)
    _print_places(folder, config, console)


def _success_lines(path: Path) -> list[str]:
    """Lines about RL's tasks: how many were never or always solved, and the hardest ones."""
    rates = read_json(path, dict[str, dict[str, float]]) if path.exists() else {}
    if not rates:
        return []
    values = [row["success"] for row in rates.values()]
    hardest = [f"{shorten(task, 60)} ({row['success']:.2f})" for task, row in list(rates.items())[:3]]
    return [
        f"{len(values)} tasks used in RL: mean success {sum(values) / len(values):.2f}, "
        f"{sum(v == 0 for v in values)} never solved, {sum(v == 1 for v in values)} always; all in {path}",
        f"  hardest: {', '.join(hardest)}",
    ]


def _quarantine_lines(folder: RunFolder) -> list[str]:
    """The tasks that no worker survived."""
    path = folder.path / "quarantine.json"
    lines = [f"  {line}" for line in Quarantine(path).lines()]
    return [f"{len(lines)} tasks in quarantine, evidence in {path}:", *lines] if lines else []


def choose_examples(answers: Sequence[ScoredRollout], count: int) -> list[ScoredRollout]:
    """Choose examples in the order of the tasks: about a third wrong ones if there are enough, the rest correct."""
    wrong = [i for i, a in enumerate(answers) if a.score.verdict.kind != "correct"]
    right = [i for i, a in enumerate(answers) if a.score.verdict.kind == "correct"]
    taken = wrong[: max(count // 3, count - len(right))]
    return [answers[i] for i in sorted(taken + right[: count - len(taken)])]


def plot_curves(
    folder: RunFolder, records: Sequence[StageRecord], path: Path, *, rl_stages: Sequence[str] = ("rl",)
) -> None:
    """Accuracy, share of thinking answers and length over the RL steps, and the held-out bars of each stage.

    Several RL stages follow one another on the axis of steps.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    rows = _one_after_another(folder, [(name, name) for name in rl_stages])
    checks = _one_after_another(folder, [(name, f"validation/{name}") for name in rl_stages])
    figure, axes = plt.subplots(1, 4, figsize=(17, 3.8), layout="constrained")
    steps = [r["step"] for r in rows]
    panels = (("accuracy", "accuracy in RL"), ("thinking_share", "share of rollouts"), ("tokens_mean", "tokens"))
    for axis, (key, title) in zip(axes, panels, strict=False):
        axis.plot(steps, [r.get(key) for r in rows], color="#9ecae1" if key == "accuracy" else "#3182bd")
        axis.set(title=title, xlabel="RL step")
        if key != "tokens_mean":
            axis.set_ylim(0, 1)
    axes[0].plot([r["step"] for r in checks], [r["greedy_accuracy"] for r in checks], "o-", ms=3, color="#e6550d")
    axes[0].legend(["rollouts", "greedy, validation"], frameon=False, loc="lower right")
    for name, color in (("evaluation", "#31a354"), ("reflection", "#756bb1")):
        axes[1].plot(steps, [r.get(f"patterns/{name}") for r in rows], color=color)
    axes[1].legend(["thinks", "checks a step", "corrects itself"], frameon=False, loc="center right")
    places = range(len(records))
    axes[3].bar([p - 0.2 for p in places], [r.greedy_accuracy for r in records], 0.4, label="greedy", color="#e6550d")
    axes[3].bar([p + 0.2 for p in places], [r.sampled_accuracy for r in records], 0.4, label="sampled", color="#9ecae1")
    axes[3].set(title="held-out accuracy after each stage", ylim=(0, 1.2))
    slant = {"rotation": 30, "ha": "right"} if len(records) > 4 else {}  # so that many names do not overlap
    axes[3].set_xticks(list(places), [r.name for r in records], **slant)
    axes[3].legend(frameon=False, loc="upper left", ncols=2)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _one_after_another(folder: RunFolder, stages: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The metrics of `(stage, metrics of it)`, with the steps counted on from stage to stage."""
    file, found, before = folder.path / "metrics.jsonl", [], 0
    for name, metrics in stages:
        found += [{**row, "step": before + row["step"]} for row in read_metrics(file, stage=metrics)]
        before += max((row["step"] for row in read_metrics(file, stage=name)), default=0)
    return found


def examples_page(answers: Sequence[ScoredRollout], *, title: str) -> str:
    """A self-contained page: images, question, thinking and answer, and the verdict with the rule that decided."""
    values = {"title": printable(title), "cards": [_card(answer) for answer in answers]}
    return render_page("examples.html.jinja", values, styles=REPORT_STYLES, scripts=REPORT_SCRIPTS)


def _card(answer: ScoredRollout) -> dict[str, object]:
    task, verdict = answer.rollout.prompt.task, answer.score.verdict
    return {
        "images": [base64.b64encode(image).decode() for image in task.images],
        "question": printable(task.question, keep="\n\t"),
        "text": printable(answer.rollout.text, keep="\n\t"),
        "kind": verdict.kind.value,
        "extracted": printable(repr(verdict.extracted)),
        "reference": printable(repr(task.answer)),
        "rule": printable(verdict.rule),
    }


def _print_examples(answers: Sequence[ScoredRollout], console: PlainConsole) -> None:
    for answer in answers:
        text = answer.rollout.text.replace("\n", "; ")
        verdict = f"{answer.score.verdict.kind} (reference {answer.rollout.prompt.task.answer})"
        console.print(f"  {text}  ->  {verdict}")


def _print_table(records: Sequence[StageRecord], console: PlainConsole) -> None:
    table = Table("stage", "seconds", "greedy", "sampled", "thinking", "tokens", title="held-out tasks")
    for r in records:
        table.add_row(
            r.name,
            f"{r.seconds:.0f}",
            *_cells(r),
        )
    console.print(table)
    for line in shortening_lines(records):
        console.print(f"  {line}")
    for name, value in records[-1].intervals.items() if records else ():
        console.print(f"  {name}: {value} (95 % interval over {value.tasks} tasks)")


def _cells(record: StageRecord) -> list[str]:
    """The figures of the held-out tasks; a dash for each where the stage has none."""
    figures = (record.greedy_accuracy, record.sampled_accuracy, record.thinking_share, record.mean_tokens)
    shown = zip(figures, (3, 3, 2, 1), strict=True)
    return ["-" if math.isnan(value) else f"{value:.{digits}f}" for value, digits in shown]


def _print_places(folder: RunFolder, config: RunConfig, console: PlainConsole) -> None:
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
        lines.append("try next:")
        lines.append(f"  thinkvl chat {path / 'export'} --image FILE.png --question 'What is the result?'")
        lines.append(f"  thinkvl export {path} --push ORG/NAME")
    for rollouts in (folder.stage(stage.name) / "rollouts" for stage in config.rl_stages):
        if rollouts.exists():
            lines.append(f"  rollouts  {rollouts}  (look at them: thinkvl book {path})")
    if "tensorboard" in config.trackers:
        lines.append(f"  tensorboard --logdir {path / 'tensorboard'}")
    console.print("\n".join(lines))
