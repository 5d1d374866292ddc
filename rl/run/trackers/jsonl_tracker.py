"""Metrics as JSON lines. Every run writes this file: its curves, its report and the benchmarks read it back."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rl.run.trackers.run_info import RunInfo


class JsonlTracker:
    """One JSON object a line in `metrics.jsonl`: stage, step, Unix time and the metrics. A non-finite number is null.

    The recipe is not repeated here: `recipe.yaml` lies beside the file.
    """

    def __init__(self, run: RunInfo) -> None:
        path = run.folder / "metrics.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        cut = path.exists() and path.read_bytes()[-1:] not in (b"", b"\n")
        self._file = path.open("a", encoding="utf-8")
        if cut:
            self._file.write("\n")  # a kill cut the last line; the next one must not become part of it

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line and flush it, so that a killed run loses none."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"stage": stage, "step": step, "time": time.time(), **finite}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path, *, stage: str | None = None) -> list[dict[str, float]]:
    """The lines of a metrics file, of one stage or all.

    A resumed run repeats the steps after its last checkpoint: the later line of a (stage, step) wins. A last line
    that was cut off by a kill is left out, and so is every line that holds no metrics.
    """
    rows: dict[tuple[str, int], dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if _is_metrics(row) and stage in (None, row["stage"]):
            rows[row["stage"], row["step"]] = row
    return [rows[key] for key in sorted(rows)]


def _is_metrics(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("stage"), str) or type(row.get("step")) is not int:
        return False
    return all(value is None or isinstance(value, int | float) for name, value in row.items() if name != "stage")
