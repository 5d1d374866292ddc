"""Where numbers go: one small sink protocol, JSON lines and TensorBoard behind it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class MetricSink(Protocol):
    """Takes the metrics of one step of one stage."""

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record `metrics`; names are those of docs/metrics.md."""
        ...

    def close(self) -> None:
        """Flush and release."""
        ...


class JsonlSink:
    """One JSON object a line: stage, step, unix time, and the metrics. A non-finite number is written as null."""

    def __init__(self, path: Path) -> None:
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


class TensorBoardSink:
    """TensorBoard event files under `folder`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and not on every machine

        self._writer = SummaryWriter(str(folder))

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add one scalar per metric under `stage/name`."""
        for name, value in metrics.items():
            self._writer.add_scalar(f"{stage}/{name}", value, step)

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


class Metrics:
    """Fans out to all sinks."""

    def __init__(self, sinks: Sequence[MetricSink]) -> None:
        self._sinks = list(sinks)

    def write(self, stage: str, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step in every sink."""
        for sink in self._sinks:
            sink.write(stage, step, metrics)

    def close(self) -> None:
        """Close every sink."""
        for sink in self._sinks:
            sink.close()


def read_metrics(path: Path, *, stage: str | None = None) -> list[dict[str, float]]:
    """The lines of a metrics file, of one stage or all.

    A resumed run repeats the steps after its last checkpoint: the later line of a (stage, step) wins. A last line
    that was cut off by a kill is left out.
    """
    rows: dict[tuple[str, int], dict[str, float]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if stage in (None, row["stage"]):
            rows[row["stage"], row["step"]] = row
    return [rows[key] for key in sorted(rows)]
