"""The page of a whole recipe: what each stage added, on the same held-out tasks, over one run or several seeds."""

from __future__ import annotations

import base64
import statistics
from collections.abc import Sequence
from pathlib import Path

from configs.load import load_recipe
from configs.schema import RunConfig
from configs.text import counted, printable
from rl.pages.page import REPORT_SCRIPTS, REPORT_STYLES, write_page
from rl.run.folder import RunFolder
from rl.run.recipe_plots import plot_accuracies, plot_answers, plot_perplexities, plot_retrieval
from rl.run.stage_figures import StageFigures, read_stages

Run = Sequence[StageFigures]
_PICTURES = ("curves.png", "lengths.png")  # that a run has drawn before


def write_recipe_page(folders: Sequence[RunFolder], path: Path) -> None:
    """Write a self-contained page about finished runs of one recipe, which differ in their seeds.

    The tables have means and ranges over the runs; the pictures of training are those of the first run.
    """
    runs = [read_stages(folder) for folder in folders]
    configs = [load_recipe(folder.path / "recipe.yaml") for folder in folders]
    pictures = [*_drawn_here(runs, path.parent), *_drawn_by_run(folders[0], runs[0])]
    values = {
        "title": printable(configs[0].name),
        "which": _which(configs),
        "own": _harmless(own_rows(runs)),
        "worse": [bool(_not_better(runs, at)) for at in range(len(runs[0]))],
        "shortcomings": [printable(line) for line in shortcomings(runs)],
        "all": _harmless(all_rows(runs)),
        "pictures": [(printable(title), picture) for title, picture in pictures],
    }
    write_page(path, "stages.html.jinja", values, styles=REPORT_STYLES, scripts=REPORT_SCRIPTS)


def own_rows(runs: Sequence[Run]) -> list[list[str]]:
    """The table of the stages' own figures, its head first."""
    rows = [["stage", "kind", "seconds", "own figure", "entering", "leaving", "better in"]]
    for at, stage in enumerate(runs[0]):
        same = [run[at] for run in runs]
        known = [one.improved for one in same if one.improved is not None]
        rows.append(
            [
                stage.name,
                stage.kind,
                f"{statistics.median(one.seconds for one in same):.0f}",
                f"{stage.own.title}, {stage.own.better} is better",
                spread([one.before for one in same]),
                spread([one.after for one in same]),
                f"{sum(known)} of {len(known)}" if known else "-",
            ]
        )
    return rows


def all_rows(runs: Sequence[Run]) -> list[list[str]]:
    """Every held-out metric after each stage, its head first."""
    names = dict.fromkeys(name for stage in runs[0] for name in stage.values)
    rows = [["metric", *(stage.name for stage in runs[0])]]
    for name in sorted(names):
        rows.append([name, *(spread([run[at].values.get(name) for run in runs]) for at in range(len(runs[0])))])
    return rows


def shortcomings(runs: Sequence[Run]) -> list[str]:
    """A sentence for each stage and run whose own figure did not improve, or was not measured."""
    lines = [
        f"{run[at].sentence()}{f' (run {number})' if len(runs) > 1 else ''}."
        for at in range(len(runs[0]))
        for number, run in enumerate(runs, 1)
        if run[at].improved is not True
    ]
    return lines or ["Every stage improved its own figure."]


def spread(values: Sequence[float | None]) -> str:
    """The mean, and in brackets the range where there are several; `-` for unknown values."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = f"{statistics.mean(known):.3g}"
    return mean if len(known) == 1 else f"{mean} ({min(known):.3g} to {max(known):.3g})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a Markdown table, the first of them its head."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _which(configs: Sequence[RunConfig]) -> str:
    """How many runs the page is about, with their seeds."""
    seeds = ", ".join(str(config.seed) for config in configs)
    if len(configs) == 1:
        return f"One run, seed {seeds}."
    return (
        f"{counted(len(configs), 'run')}, seeds {seeds}: means, and in brackets the range. "
        f"Curves are those of the first run."
    )


def _not_better(runs: Sequence[Run], at: int) -> list[StageFigures]:
    return [run[at] for run in runs if run[at].improved is False]


def _harmless(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[printable(cell) for cell in row] for row in rows]


def _drawn_here(runs: Sequence[Run], folder: Path) -> list[tuple[str, str]]:
    """(title, picture) of the held-out figures over the stages; those without figures are left out."""
    drawn = []
    for title, plot in (
        ("Accuracy of greedy answers by source", plot_accuracies),
        ("Accuracy and thinking on held-out questions", plot_answers),
        ("Perplexity of held-out documents", plot_perplexities),
        ("Retrieval", plot_retrieval),
    ):
        path = folder / "recipe_picture.png.partial"
        if plot(runs, path):
            drawn.append((title, _encoded(path)))
            path.unlink()
    return drawn


def _drawn_by_run(folder: RunFolder, stages: Run) -> list[tuple[str, str]]:
    """(title, picture) of the needles of each long-context stage, and of the run's own curves."""
    needles = [(f"Needles, {stage.name}", folder.stage(stage.name) / "needles.png") for stage in stages]
    own = [(name.removesuffix(".png").capitalize(), folder.path / name) for name in _PICTURES]
    return [(title, _encoded(path)) for title, path in (*needles, *own) if path.exists()]


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
