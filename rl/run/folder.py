"""A run's folder: its layout, its lock, its recipe, and the records of finished stages."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from configs.errors import UserError
from configs.files import write_text
from configs.json_io import read_json
from configs.load import dump_recipe, load_recipe
from configs.schema import RunConfig
from rl.run.accuracy import Estimate
from rl.run.recipe_changes import differences, may_change, written

_BEFORE_RECIPE = {"lock", ".writable", "recipe.yaml.partial"}  # what a run that was killed at once may have left


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One finished stage, as `summary.json` shows it. Shares are in [0, 1]; tokens are means over greedy answers.

    They are NaN for a stage without held-out tasks.
    """

    name: str
    kind: str
    seconds: float  # of training, in the invocation that finished the stage
    greedy_accuracy: float
    sampled_accuracy: float
    thinking_share: float
    mean_tokens: float
    resumed: bool = False
    intervals: dict[str, Estimate] = field(default_factory=dict)  # as in `EvalResult`
    figures: dict[str, float] = field(default_factory=dict)  # the stage's own, such as `perplexity/SOURCE`
    weights: dict[str, str] = field(default_factory=dict)  # the hash of each file of the model that it left


class RunFolder:
    """`recipe.yaml`, `base/`, one folder a stage, `metrics.jsonl`, `tensorboard/`, `export/`, `summary.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, config: RunConfig) -> RunFolder:
        """Create or re-open the folder that the recipe names.

        Raises UserError if it cannot be written, or holds something else or the run of another recipe.
        """
        folder = cls(_path(config.output_dir))
        recipe = folder.path / "recipe.yaml"
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            probe = folder.path / ".writable"
            probe.touch()
            probe.unlink()
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"output_dir = {config.output_dir!r}: cannot be written ({why}); choose another with output_dir=PATH"
            ) from error
        if recipe.exists():
            if folder.begun():
                folder._refuse_other_runs(config)
        elif any(p.name not in _BEFORE_RECIPE for p in folder.path.iterdir()):
            raise UserError(
                f"output_dir = {config.output_dir!r}: the folder is not empty and holds no recipe.yaml: it is no run; "
                "choose another with output_dir=PATH"
            )
        else:
            write_text(recipe, dump_recipe(config))
        return folder

    def accept_changes(self, config: RunConfig) -> list[str]:
        """Make `config` the run's recipe, record the differences in `changes.jsonl`, and return them as lines of text.

        A run that has made no step is not worth keeping: its recipe may change in any way, and so may its files.
        Raises UserError where a run that has begun may not change so. The folder must be locked, because another
        process may run with the present recipe.
        """
        changed = differences(load_recipe(self.path / "recipe.yaml"), config)
        if not self.begun():
            (self.path / "inputs.json").unlink(missing_ok=True)
            if changed:
                shutil.rmtree(self.stage("base"), ignore_errors=True)  # made for the earlier recipe
                write_text(self.path / "recipe.yaml", dump_recipe(config))
            return []
        self._refuse_other_runs(config)  # again: it may have begun since `open`
        if not changed:
            return []
        with (self.path / "changes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), "changed": changed}) + "\n")
        write_text(self.path / "recipe.yaml", dump_recipe(config))
        return [f"{key}: {written(there)} before, {written(now)} now" for key, (there, now) in changed.items()]

    def begun(self) -> bool:
        """Whether the run has anything to go on with: a step's metrics, a checkpoint, rollouts or a finished stage."""
        metrics = self.path / "metrics.jsonl"
        if metrics.exists() and metrics.stat().st_size:
            return True
        kept = ("*/stage.json", "*/checkpoints/*", "*/rollouts/*")
        return any(next(self.path.glob(pattern), None) for pattern in kept)

    def _refuse_other_runs(self, config: RunConfig) -> None:
        """Raise UserError where the recipe in the folder differs in a key that must not change."""
        changed = differences(load_recipe(self.path / "recipe.yaml"), config)
        done = [record.name for record in self.records()]
        refused = [key for key in changed if not may_change(config, key, done=done)]
        if not refused:
            return
        lines = [f"  {key}: {written(changed[key][0])} there, {written(changed[key][1])} now" for key in refused]
        more = f"\n  and {len(lines) - 8} more" if len(lines) > 8 else ""
        raise UserError(
            f"output_dir = {config.output_dir!r} holds a run of another recipe:\n" + "\n".join(lines[:8]) + more + "\n"
            "set these keys back to go on with that run, or choose another folder with output_dir=PATH"
        )

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; UserError if another process runs in it."""
        with (self.path / "lock").open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise UserError(
                    f"process {file.read().strip() or '?'} is already running in {self.path}; "
                    "wait for it, stop it, or choose another folder with output_dir=PATH"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield

    def stage(self, name: str) -> Path:
        """The folder of a stage."""
        return self.path / name

    def record(self, name: str) -> StageRecord | None:
        """The record of a finished stage; None for any other."""
        path = self.stage(name) / "stage.json"
        return replace(read_json(path, StageRecord), name=name) if path.exists() else None

    def records(self) -> list[StageRecord]:
        """The records of the finished stages, in the order in which they ran."""
        names = [stage.name for stage in load_recipe(self.path / "recipe.yaml").stages]
        return [record for record in map(self.record, names) if record is not None]

    def finish(self, record: StageRecord) -> None:
        """Mark a stage as done, atomically."""
        write_json(self.stage(record.name) / "stage.json", asdict(record))


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, atomically."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _path(output_dir: str) -> Path:
    """The folder that a recipe names; `~` is the user's. Raises UserError for an address and for a colon."""
    path = Path(output_dir).expanduser()
    if "://" in output_dir:
        raise UserError(
            f"output_dir = {output_dir!r}: an address; a run needs a folder of this machine, or one that is mounted; "
            "choose another with output_dir=PATH"
        )
    if ":" in str(path.absolute()):
        raise UserError(
            f"output_dir = {output_dir!r}: {path.absolute()} holds a colon, which libraries take for the scheme of an "
            "address; choose another with output_dir=PATH"
        )
    return path
