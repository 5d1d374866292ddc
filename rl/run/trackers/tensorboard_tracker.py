"""Metrics as TensorBoard event files."""

from __future__ import annotations

from collections.abc import Mapping

from configs import yaml_io
from rl.run.trackers.run_info import RunInfo


class TensorBoardTracker:
    """Event files under `tensorboard/` in the run's folder; the recipe is shown as a text."""

    def __init__(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"))
        recipe = yaml_io.dump(dict(run.recipe))
        self._writer.add_text("recipe", "".join(f"    {line}\n" for line in recipe.splitlines()))

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add one scalar per metric under `stage/name`."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
