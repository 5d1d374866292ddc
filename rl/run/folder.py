"""A run's folder: what lies where, whose it is, and which stages are done."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from configs.files import write_text
from configs.load import digest, dump_recipe, load_recipe
from configs.rl import RanksConfig
from configs.schema import RunConfig
from configs.yaml_io import flatten
from rl.errors import UserError

STAGES = ("instruct", "long_cot", "rl")  # in the order in which they run

_BEFORE_RECIPE = {"lock", ".writable", "recipe.yaml.partial"}  # what a run that was killed at once may have left


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRecord:
    """One finished stage, as `summary.json` shows it. Shares are in [0, 1]; tokens are means over greedy answers."""

    name: str
    seconds: float  # of training, in the invocation that finished the stage
    greedy_accuracy: float
    sampled_accuracy: float
    thinking_share: float
    mean_tokens: float
    resumed: bool = False


class RunFolder:
    """`recipe.yaml`, `base/`, one folder a stage, `metrics.jsonl`, `tensorboard/`, `export/`, `summary.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, config: RunConfig) -> RunFolder:
        """Create or re-open the folder that the recipe names.

        Raises UserError if it cannot be written, holds something that is no run, or another recipe's run.
        """
        folder = cls(Path(config.output_dir))
        recipe = folder.path / "recipe.yaml"
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
            probe = folder.path / ".writable"
            probe.touch()
            probe.unlink()
        except OSError as error:
            raise UserError(
                f"output_dir = {config.output_dir!r}: cannot be written ({error.strerror}); "
                "choose another with output_dir=PATH"
            ) from error
        if recipe.exists():
            found = load_recipe(recipe)
            if digest(_as_learnt(found)) != digest(_as_learnt(config)):
                raise UserError(_other_recipe(config, found))
        elif any(p.name not in _BEFORE_RECIPE for p in folder.path.iterdir()):
            raise UserError(
                f"output_dir = {config.output_dir!r}: the folder is not empty and holds no recipe.yaml: it is no run; "
                "choose another with output_dir=PATH"
            )
        else:
            write_text(recipe, dump_recipe(config))
        return folder

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
        """The record of a stage that is done, None otherwise."""
        path = self.stage(name) / "stage.json"
        return StageRecord(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def records(self) -> list[StageRecord]:
        """The records of the finished stages, in the order in which they ran."""
        return [record for record in map(self.record, STAGES) if record is not None]

    def finish(self, record: StageRecord) -> None:
        """Mark a stage as done, atomically."""
        write_json(self.stage(record.name) / "stage.json", asdict(record))


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON, atomically, so that readers never see half a file."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def _as_learnt(config: RunConfig) -> RunConfig:
    """The recipe without what does not change what is learnt: a run may go on with another number of ranks."""
    if config.rl is None:
        return config
    return replace(
        config, rl=replace(config.rl, ranks=RanksConfig(count=2, compute_dtype=config.rl.ranks.compute_dtype))
    )


def _other_recipe(config: RunConfig, found: RunConfig) -> str:
    """Says which keys differ between the folder's run and the one that was asked for."""
    wanted, there = flatten(asdict(config)), flatten(asdict(found))
    differing = sorted(k for k in wanted.keys() | there.keys() if wanted.get(k) != there.get(k) and k != "output_dir")
    shown = "\n".join(f"  {k}: {there.get(k)!r} there, {wanted.get(k)!r} now" for k in differing[:8])
    more = f"\n  and {len(differing) - 8} more" if len(differing) > 8 else ""
    return (
        f"output_dir = {config.output_dir!r} holds a run of another recipe:\n{shown}{more}\n"
        "choose another folder with output_dir=PATH, or delete that one"
    )
