"""Pictures of the held-out figures over a recipe's stages; values are means over runs."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.run.stage_figures import StageFigures

Run = Sequence[StageFigures]


def plot_accuracies(runs: Sequence[Run], path: Path) -> bool:
    """A map of greedy accuracy: a row for each source, a column for each stage. False where there is no figure."""
    import numpy as np

    head = "greedy_accuracy/"
    names = _names(runs, head)
    stages = [stage for stage in range(len(runs[0])) if any(name in runs[0][stage].values for name in names)]
    if not names:
        return False
    values = np.array([[_mean(runs, at, name) for at in stages] for name in names])
    size = (3.4 + 0.95 * len(stages), 1.2 + 0.42 * len(names))
    figure, axis = _pyplot().subplots(figsize=size, layout="constrained")
    axis.imshow(values, vmin=0, vmax=1, cmap="YlGnBu", aspect="auto")
    axis.set_xticks(range(len(stages)), [runs[0][at].name for at in stages], rotation=30, ha="right")
    axis.set_yticks(range(len(names)), [name.removeprefix(head) for name in names])
    for (row, column), value in np.ndenumerate(values):
        color = "white" if value > 0.6 else "black"
        axis.text(column, row, "" if np.isnan(value) else f"{value:.2f}", ha="center", va="center", color=color)
    return _save(figure, path)


def plot_perplexities(runs: Sequence[Run], path: Path) -> bool:
    """A line of each source over the stages. False where there is no figure."""
    head = "perplexity/"
    names = _names(runs, head)
    if not names:
        return False
    figure, axis = _lines(runs, {name: name.removeprefix(head) for name in names})
    axis.set_yscale("log", subs=(2, 5))  # marks at 1, 2, 5, 10, ...
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    return _save(figure, path)


def plot_answers(runs: Sequence[Run], path: Path) -> bool:
    """Accuracy and the share that thinks over the stages. False if no stage has held-out questions."""
    shown = {"greedy_accuracy": "greedy accuracy", "sampled_accuracy": "sampled accuracy", "thinking_share": "thinks"}
    if not any(name in stage.values for stage in runs[0] for name in shown):
        return False
    figure, axis = _lines(runs, shown)
    axis.set_ylim(0, 1)
    return _save(figure, path)


def _lines(runs: Sequence[Run], shown: Mapping[str, str]) -> tuple[Any, Any]:
    """A line over the stages for each metric in `shown`, which has its title."""
    figure, axis = _pyplot().subplots(figsize=(5.5 + 0.6 * len(runs[0]), 4), layout="constrained")
    for name, title in shown.items():
        axis.plot([_mean(runs, at, name) for at in range(len(runs[0]))], "o-", ms=4, label=title)
    axis.set_xticks(range(len(runs[0])), [stage.name for stage in runs[0]], rotation=30, ha="right")
    axis.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    axis.spines[["top", "right"]].set_visible(False)
    return figure, axis


def plot_retrieval(runs: Sequence[Run], path: Path) -> bool:
    """Recall at 1 before and after each stage that measures it. False where there is none."""
    bars: list[tuple[str, float, float]] = []
    for at, stage in enumerate(runs[0]):
        for name in sorted(stage.values):
            if name.startswith(("image_to_text_1/", "text_to_image_1/")):
                way, _, source = name.partition("/")
                before = statistics.mean(run[at].entering.get(name, 0.0) for run in runs)
                bars.append((f"{source}, {way.removesuffix('_1').replace('_', ' ')}", before, _mean(runs, at, name)))
    if not bars:
        return False
    figure, axis = _pyplot().subplots(figsize=(8, 1 + 0.5 * len(bars)), layout="constrained")
    places = range(len(bars))
    axis.barh([place - 0.2 for place in places], [bar[1] for bar in bars], 0.4, label="entering", color="#9ecae1")
    axis.barh([place + 0.2 for place in places], [bar[2] for bar in bars], 0.4, label="leaving", color="#3182bd")
    axis.set_yticks(list(places), [bar[0] for bar in bars])
    axis.invert_yaxis()
    axis.set(xlabel="recall at 1")
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return _save(figure, path)


def _names(runs: Sequence[Run], head: str) -> list[str]:
    return sorted({name for stage in runs[0] for name in stage.values if name.startswith(head)})


def _mean(runs: Sequence[Run], at: int, name: str) -> float:
    """The mean of a metric after stage `at`; NaN where no run has it."""
    known = [run[at].values[name] for run in runs if name in run[at].values]
    return statistics.mean(known) if known else float("nan")


def _pyplot() -> Any:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def _save(figure: Any, path: Path) -> bool:
    figure.savefig(path, dpi=100, format="png")
    _pyplot().close(figure)
    return True
