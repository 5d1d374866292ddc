"""What a run's folder and its processes say about it. Nothing is written, and the run is not disturbed."""

from __future__ import annotations

import fcntl
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.load import load_recipe
from configs.schema import RunConfig
from rl.run.end_record import EndRecord, read_end
from rl.run.trackers.jsonl_tracker import read_metrics

_STEPS = 20  # the latest, whose median is the usual time of a step


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """A process of a run: the one that drives it, a rollout worker, a rank, a server of Ray, a verifier."""

    pid: int
    name: str  # such as `driver` or `ray::RolloutActor`
    state: str  # psutil's word: running, sleeping, stopped, disk-sleep, zombie, ...
    memory: int  # bytes
    python: bool  # whether it has Python stacks


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """A run as its folder shows it."""

    folder: Path
    config: RunConfig
    locked: bool  # a process runs in it, on this machine or another that shares the disk
    pid: int | None  # of the process that drives it, or did
    end: EndRecord | None
    done: bool
    stage: str | None  # the one at hand; None: all are finished
    rows: Sequence[Mapping[str, Any]]  # metrics of that stage
    processes: Sequence[ProcessFacts]
    failures: Sequence[Path]  # of workers, oldest first
    now: float = field(default_factory=time.time)

    @property
    def step_seconds(self) -> float | None:
        """The usual time between two lines of metrics; None with fewer than three lines."""
        times = [row["time"] for row in self.rows if isinstance(row.get("time"), int | float)][-_STEPS:]
        gaps = [after - before for before, after in pairwise(times) if after > before]
        return statistics.median(gaps) if len(gaps) >= 2 else None

    @property
    def silent_seconds(self) -> float:
        """Seconds since anything in the folder was written."""
        newest = self.folder.stat().st_mtime
        for file in self.folder.rglob("*"):
            try:
                newest = max(newest, file.stat().st_mtime)
            except OSError:
                continue
        return max(0.0, self.now - newest)


def read_run(name: str) -> RunFacts:
    """The facts about the run in the folder `name`. Raises UserError where there is no run."""
    folder = Path(name).expanduser()
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{name}: no run is there (no recipe.yaml); name the folder of a run, its output_dir")
    config = load_recipe(folder / "recipe.yaml")
    end = read_end(folder)
    locked, pid = _lock(folder / "lock")
    if pid is None and end is not None:
        pid = end.pid
    stage = next((s.name for s in config.stages if not (folder / s.name / "stage.json").exists()), None)
    rows = read_metrics(folder / "metrics.jsonl", stage=stage)
    return RunFacts(
        folder=folder,
        config=config,
        locked=locked,
        pid=pid,
        end=end,
        done=(folder / "summary.json").exists(),
        stage=stage,
        rows=rows,
        processes=_processes(pid) if locked and pid is not None else (),
        failures=sorted((folder / "failures").glob("*.txt"), key=lambda file: file.stat().st_mtime),
    )


def _lock(path: Path) -> tuple[bool, int | None]:
    """Whether a process holds the lock, and the number that the file names. The lock is only tried."""
    try:
        with path.open("rb") as file:
            text = file.read(32).decode("ascii", "replace").strip()
            pid = int(text) if text.isdigit() else None
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True, pid
            return False, pid
    except OSError:
        return False, None


def _processes(pid: int) -> list[ProcessFacts]:
    """The process that drives the run and all below it."""
    import psutil

    try:
        driver = psutil.Process(pid)
        below = driver.children(recursive=True)
    except psutil.Error:
        return []
    found = []
    for process in (driver, *below):
        try:
            with process.oneshot():
                executable = os.path.basename(process.exe() or "")  # noqa: PTH119
                found.append(
                    ProcessFacts(
                        pid=process.pid,
                        name="driver" if process.pid == pid else _name(process.cmdline(), process.name()),
                        state=process.status(),
                        memory=process.memory_info().rss,
                        python=executable.startswith("python"),
                    )
                )
        except psutil.Error:
            continue
    return found


def _name(command: Sequence[str], short: str) -> str:
    """Ray's workers name themselves `ray::CLASS.method`; ours are known by the module that they run."""
    first = command[0] if command else short
    if first.startswith("ray::"):
        return first.split(" ")[0]
    module = next((part for part in command if part.startswith(("rewards.", "rollouts.", "rl."))), None)
    return module or short
