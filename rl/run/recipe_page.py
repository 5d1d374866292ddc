"""The page of a whole recipe: what each stage added, on the same held-out tasks, over one run or several seeds."""

from __future__ import annotations

import base64
import html
import statistics
from collections.abc import Sequence
from pathlib import Path

from configs.load import load_recipe
from configs.schema import RunConfig
from configs.text import printable
from rl.run.folder import RunFolder
from rl.run.recipe_plots import plot_accuracies, plot_answers, plot_perplexities, plot_retrieval
from rl.run.stage_figures import StageFigures, read_stages

Run = Sequence[StageFigures]
_PICTURES = ("curves.png", "lengths.png")  # that a run has drawn before
_STYLE = (
    "body{font:15px/1.5 system-ui;max-width:72rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{border:1px solid #ddd;padding:.25rem .6rem;text-align:right}"
    "td:first-child,th:first-child{text-align:left}tr.worse td{background:#fbe9e7}img{max-width:100%}"
)


def write_recipe_page(folders: Sequence[RunFolder], path: Path) -> None:
    """Write a self-contained page about finished runs of one recipe, which differ in their seeds.

    The tables have means and ranges over the runs; the pictures of training are those of the first run.
    """
    runs = [read_stages(folder) for folder in folders]
    configs = [load_recipe(folder.path / "recipe.yaml") for folder in folders]
    title = f"{_text(configs[0].name)}: what each stage added"
    pictures = [*_drawn_here(runs, path.parent), *_drawn_by_run(folders[0], runs[0])]
    body = [
        f"<h1>{title}</h1>",
        f"<p>{_which(configs)} Every stage is measured on held-out tasks. A stage's own figure stands beside that of "
        "the model that entered it; red rows have not improved in every run.</p>",
        _html_table(own_rows(runs), worse=[bool(_not_better(runs, at)) for at in range(len(runs[0]))]),
        *(f"<p>{_text(line)}</p>" for line in shortcomings(runs)),
        "<h2>All figures</h2>",
        _html_table(all_rows(runs)),
        *(
            f"<h2>{_text(title)}</h2><img alt='{_text(title)}' src='data:image/png;base64,{image}'>"
            for title, image in pictures
        ),
    ]
    head = f"<!doctype html><meta charset='utf-8'><title>{title}</title><style>{_STYLE}</style>"
    path.write_text(f"{head}{''.join(body)}", encoding="utf-8")


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
    return f"{len(configs)} runs, seeds {seeds}: means, and in brackets the range. Curves are those of the first run."


def _not_better(runs: Sequence[Run], at: int) -> list[StageFigures]:
    return [run[at] for run in runs if run[at].improved is False]


def _html_table(rows: Sequence[Sequence[str]], *, worse: Sequence[bool] = ()) -> str:
    """A table; `worse` marks rows below the head."""
    head, *body = [[_text(cell) for cell in row] for row in rows]
    marks = [*worse, *[False] * len(body)]
    lines = [
        f"<tr{' class=worse' if mark else ''}><td>{'</td><td>'.join(row)}</td></tr>"
        for row, mark in zip(body, marks, strict=False)
    ]
    return f"<table><tr><th>{'</th><th>'.join(head)}</th></tr>{''.join(lines)}</table>"


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


def _text(value: str) -> str:
    return html.escape(printable(value, keep="\n\t"))
