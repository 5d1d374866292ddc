"""Metrics in trackio, Hugging Face's local tracker."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rl.run.trackers.run_info import RunInfo


class TrackioTracker:
    """A trackio run; the project is `TRACKIO_PROJECT`, else `thinkvl`. `trackio show` opens the dashboard.

    Each stage logs the step as `STAGE/step`: trackio's own step counts all the stages' lines.
    """

    def __init__(self, run: RunInfo) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "thinkvl"),
            name=f"{run.name}-{run.id('trackio')[:8]}",
            resume="allow",
            config=run.hyper_parameters(),
            embed=False,
        )

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one step of one stage."""
        self._run.log({f"{stage}/step": step, **{f"{stage}/{name}": value for name, value in metrics.items()}})

    def close(self) -> None:
        """Flush the metrics and end the run."""
        self._run.finish()
