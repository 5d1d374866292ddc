"""The needle map: accuracy by depth and length, before a stage and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rl.run.needle import KINDS, Cell, Kind


def plot_needles(maps: Mapping[str, Sequence[Cell]], path: Path) -> None:
    """One row of panels for each kind of needle, one column for each map; its name is the title."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    size = (4.2 * len(maps), 3.2 * len(KINDS))
    figure, axes = plt.subplots(len(KINDS), len(maps), figsize=size, layout="constrained", squeeze=False)
    for row, kind in zip(axes, KINDS, strict=True):
        for axis, (title, cells) in zip(row, maps.items(), strict=True):
            values, depths, lengths = needle_table(cells, kind)
            image = axis.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
            axis.set(title=f"{kind}, {title}: {np.mean(values):.2f}", xlabel="tokens", ylabel="depth")
            axis.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
            axis.set_yticks(range(len(depths)), [f"{depth:.0%}" for depth in depths])
            for (at, across), value in np.ndenumerate(values):
                colour = "black" if 0.15 < value < 0.85 else "white"
                axis.text(across, at, f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(image, ax=axes, label="accuracy", shrink=0.6)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def needle_table(cells: Sequence[Cell], kind: Kind) -> tuple[np.ndarray, list[float], list[int]]:
    """Accuracies `[depths, lengths]` of one kind, the depths from the beginning of the text, and the lengths."""
    own = {(cell.depth, cell.length): cell.accuracy for cell in cells if cell.kind == kind}
    depths, lengths = sorted({depth for depth, _ in own}), sorted({length for _, length in own})
    return np.array([[own[depth, length] for length in lengths] for depth in depths]), depths, lengths
