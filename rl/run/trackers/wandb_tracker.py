"""Metrics at Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rl.run.trackers.run_info import RunInfo


class WandbTracker:
    """A W&B run; the project is `WANDB_PROJECT`, else `thinkvl`. `WANDB_MODE=offline` keeps everything in the folder.

    Every stage has an axis of its own, `STAGE/step`: W&B's global step can only grow, but each stage starts from 0.
    """

    def __init__(self, run: RunInfo) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "thinkvl"),
            id=run.id("wandb"),
            name=run.name,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.recipe),
        )
        self._stages: set[str] = set()

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one step of one stage."""
        if stage not in self._stages:
            self._stages.add(stage)
            self._run.define_metric(f"{stage}/step")
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in metrics.items()}})

    def close(self) -> None:
        """Send the remaining metrics and end the run."""
        self._run.finish()
