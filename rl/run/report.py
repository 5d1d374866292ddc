"""The files that a run ends with: `summary.json`, curves (PNG), pages of the stages and of examples.

The report that is rewritten as the run goes is `rl.pages.report`; what is printed, `rl.run.last_words`.
"""

from __future__ import annotations

import base64
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from configs.schema import RunConfig
from configs.text import printable
from rewards.images import decode_image
from rl.pages.page import REPORT_SCRIPTS, REPORT_STYLES, render_page
from rl.pages.report import PACKAGES
from rl.run.console import PlainConsole
from rl.run.folder import RunFolder, StageRecord, write_json
from rl.run.last_words import print_end
from rl.run.length_plot import plot_lengths, shortening_lines
from rl.run.recipe_page import write_recipe_page
from rl.run.trackers.jsonl_tracker import read_metrics
from rollouts.types import ScoredRollout

_EXAMPLES = 10
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


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
    summary["example"] = _write_example(chosen, folder.path / "example.png")
    write_json(folder.path / "summary.json", summary)  # last: it says that the run is finished
    if chosen:
        console.print("some held-out tasks: the model's answer, its verdict")
    _print_examples(chosen, console)
    print_end(folder, config, console)


def _write_example(answers: Sequence[ScoredRollout], path: Path) -> str:
    """Write the image of the first held-out task with one image, for `thinkvl chat`; its question.

    A long question, or one that a terminal cannot show, is "..."; without such a task there is none ("").
    """
    tasks = [answer.rollout.prompt.task for answer in answers]
    task = next((task for task in tasks if len(task.images) == 1), None)
    if task is None:
        return ""
    image = decode_image(task.images[0])
    (image if image.mode in _PNG_MODES else image.convert("RGB")).save(path)
    question = task.question.replace("<image>", "").strip()
    return question if len(question) <= 100 and question == printable(question) else "..."


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
