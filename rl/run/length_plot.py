"""Accuracy against length after each stage: the gains and costs of long2short stages (k1.5 §2.4)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rl.run.folder import StageRecord

_BEFORE = ("before/mean_tokens", "before/greedy_accuracy")


def shortening_lines(records: Sequence[StageRecord]) -> list[str]:
    """One line for each stage that measured the model that entered it: accuracy and tokens before and after."""
    lines: list[str] = []
    for record in records:
        if all(name in record.figures for name in _BEFORE):
            tokens, accuracy = (record.figures[name] for name in _BEFORE)
            lines.append(
                f"{record.name}: greedy {accuracy:.3f} -> {record.greedy_accuracy:.3f}, "
                f"tokens {tokens:.1f} -> {record.mean_tokens:.1f}"
            )
    return lines


def plot_lengths(records: Sequence[StageRecord], path: Path) -> None:
    """Plot a point for each stage, and for a long2short stage an arrow from its initial to its final model."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(5.5, 4), layout="constrained")
    for record in records:
        end = (record.mean_tokens, record.greedy_accuracy)
        axis.plot(*end, "o", color="#3182bd")
        axis.annotate(record.name, end, xytext=(5, 5), textcoords="offset points")
        if all(name in record.figures for name in _BEFORE):
            start = (record.figures[_BEFORE[0]], record.figures[_BEFORE[1]])
            axis.annotate("", end, xytext=start, arrowprops={"arrowstyle": "->", "color": "#e6550d"})
    axis.set(title="held-out tasks after each stage", xlabel="mean tokens, greedy", ylabel="accuracy, greedy")
    axis.set_xlim(0, 1.2 * max(axis.get_xlim()[1], 1.0))  # room for the names
    axis.set_ylim(0, 1.05)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
