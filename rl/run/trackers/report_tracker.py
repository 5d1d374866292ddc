"""Rewrites the run's report as it goes."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rl.pages.report import write_report
from rl.run.folder import RunFolder
from rl.run.trackers.run_info import RunInfo

_PAUSE = 10.0  # seconds between two writes, at least
_COST = 100  # the pause is at least this many times what writing took: 1 % of the run


class ReportTracker:
    """Writes `report.html` from `metrics.jsonl` after a step, at most every ten seconds, and when the run ends."""

    def __init__(self, run: RunInfo) -> None:
        self._folder = RunFolder(run.folder)
        self._next = 0.0

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Write the report, if it is time."""
        began = time.monotonic()
        if began >= self._next:
            write_report(self._folder)
            took = time.monotonic() - began
            self._next = time.monotonic() + max(_PAUSE, _COST * took)

    def close(self) -> None:
        """Write the report once more, with the last step."""
        write_report(self._folder)
