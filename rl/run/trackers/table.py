"""The table of trackers, and the object that passes the metrics of every step to the trackers of a run."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from configs.errors import UserError
from configs.text import nearest_or_allowed
from rl.run.trackers.jsonl_tracker import JsonlTracker
from rl.run.trackers.mlflow_tracker import MlflowTracker
from rl.run.trackers.report_tracker import ReportTracker
from rl.run.trackers.run_info import RunInfo
from rl.run.trackers.tensorboard_tracker import TensorBoardTracker
from rl.run.trackers.trackio_tracker import TrackioTracker
from rl.run.trackers.wandb_tracker import WandbTracker


class Tracker(Protocol):
    """Takes the metrics of a run, step by step. It is made from a `RunInfo`, whose recipe it logs."""

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record the metrics of one step of one stage; docs/metrics.md lists their names."""
        ...

    def close(self) -> None:
        """Flush the metrics and release all resources."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackerKind:
    """A tracker's class, and the package that it needs beyond ThinkVL's own dependencies."""

    make: Callable[[RunInfo], Tracker]
    extra: str | None = None  # the import name of the package, which is also the name of our extra


TRACKERS: Mapping[str, TrackerKind] = {
    "jsonl": TrackerKind(make=JsonlTracker),
    "report": TrackerKind(make=ReportTracker),
    "tensorboard": TrackerKind(make=TensorBoardTracker),
    "wandb": TrackerKind(make=WandbTracker, extra="wandb"),
    "trackio": TrackerKind(make=TrackioTracker, extra="trackio"),
    "mlflow": TrackerKind(make=MlflowTracker, extra="mlflow"),
}


def check_trackers(names: Sequence[str]) -> None:
    """Raise UserError for a tracker that is unknown, listed twice, or whose package is not installed."""
    for index, name in enumerate(names):
        key = f"trackers.{index} = {name!r}"
        if name not in TRACKERS:
            raise UserError(f"{key}: unknown{nearest_or_allowed(name, TRACKERS)}")
        if name in names[:index]:
            raise UserError(f"{key}: listed twice; remove one")
        extra = TRACKERS[name].extra
        if extra is not None and importlib.util.find_spec(extra) is None:
            raise UserError(f"{key}: {extra} is not installed; run `pip install 'thinkvl[{extra}]'`")


class Metrics:
    """Passes the metrics of each step to every tracker of the run.

    A tracker that fails is closed and no longer used: a server that is down must not end a run. Only a failure
    of `jsonl` is raised, since the run's own report reads that file.
    """

    def __init__(self, trackers: Mapping[str, Tracker], say: Callable[[str], None]) -> None:
        self._trackers, self._say = dict(trackers), say

    @classmethod
    def open(cls, names: Sequence[str], run: RunInfo, say: Callable[[str], None]) -> Metrics:
        """Start `jsonl`, `report` and the trackers in `names`. Raises UserError as `check_trackers` does."""
        check_trackers(names)
        trackers: dict[str, Tracker] = {}
        for name in dict.fromkeys(("jsonl", "report", *names)):
            try:
                trackers[name] = TRACKERS[name].make(run)
            except Exception as error:
                for tracker in trackers.values():
                    tracker.close()
                if name == "jsonl" or isinstance(error, UserError):
                    raise
                raise UserError(f"tracker {name} cannot be started: {type(error).__name__}: {error}") from error
        return cls(trackers, say)

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step of one stage in every tracker."""
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.write(stage, step, metrics)
            except Exception as error:  # each library raises its own
                if name == "jsonl":
                    raise
                del self._trackers[name]
                with suppress(Exception):
                    tracker.close()
                self._say(f"tracker {name} failed at {stage} step {step} and is left out: {error}")

    def close(self) -> None:
        """Close every tracker."""
        for name, tracker in self._trackers.items():
            try:
                tracker.close()
            except Exception as error:
                self._say(f"tracker {name} failed to close: {error}")
