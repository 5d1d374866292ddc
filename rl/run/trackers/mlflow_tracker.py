"""Metrics in MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping

from rl.run.trackers.run_info import RunInfo

_LONGEST_VALUE = 500  # characters of a parameter; servers refuse longer ones
_PARAMETERS_AT_A_TIME = 100  # the most that a server takes in one call


class MlflowTracker:
    """A run in the experiment `MLFLOW_EXPERIMENT_NAME`, else `thinkvl`, of the server `MLFLOW_TRACKING_URI`.

    Without a server, everything goes to `mlflow.db` in the run's folder.
    """

    def __init__(self, run: RunInfo) -> None:
        import mlflow  # pyright: ignore[reportMissingImports]

        place = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(run.folder / 'mlflow.db').resolve()}"
        mlflow.set_tracking_uri(place)
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", "thinkvl"))
        known = run.known_id("mlflow")
        started = mlflow.start_run(run_id=known) if known else mlflow.start_run(run_name=run.name)
        self._mlflow = mlflow
        if known is None:
            run.keep_id("mlflow", started.info.run_id)
            values = [(key, str(value)[:_LONGEST_VALUE]) for key, value in run.hyper_parameters().items()]
            for start in range(0, len(values), _PARAMETERS_AT_A_TIME):
                mlflow.log_params(dict(values[start : start + _PARAMETERS_AT_A_TIME]))

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one step under `stage/name`."""
        self._mlflow.log_metrics({f"{stage}/{name}": value for name, value in metrics.items()}, step=step)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()
