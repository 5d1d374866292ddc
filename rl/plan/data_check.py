"""Problems of a recipe's data that show without a model: sources that are here are opened, and their rows read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from configs.data import SourceConfig
from configs.errors import UserError
from configs.schema import RunConfig
from configs.stage import StageConfig
from configs.supervised import SFTConfig
from configs.text import counted
from rewards.audit.data import Duplicates
from rewards.types import Task
from rollouts.tasks.dataset import FORMATS
from rollouts.tasks.source import BUILT_IN, build_source

_LOOKED_AT = 500  # examples of each source
_ROLES = ("train", "validation", "held_out")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataFinding:
    """Something about a source: a problem, or what was not looked at."""

    source: str
    text: str
    problem: bool = True


def check_data(config: RunConfig, *, base: Path) -> list[DataFinding]:
    """Open every source that is on this machine; sources of the Hub are named and not read."""
    found: list[DataFinding] = []
    duplicates, seen = Duplicates(), set[str]()
    for stage in config.stages:
        data = config.data_of(stage)
        for role in _ROLES:
            for entry in getattr(data, role):
                key = repr((role, entry))
                if key in seen:
                    continue
                seen.add(key)
                found += _check_source(entry, role, stage, duplicates, base)
    return list(dict.fromkeys(found))


def _check_source(
    entry: SourceConfig, role: str, stage: StageConfig, duplicates: Duplicates, base: Path
) -> Iterator[DataFinding]:
    in_python = ".py:" in entry.use
    if entry.use not in BUILT_IN and not in_python and Path(entry.use).suffix not in FORMATS:
        yield DataFinding(source=entry.use, text="on the Hub: not read", problem=False)
        return
    try:
        source = build_source(entry, base=base)
    except UserError as error:
        yield DataFinding(source=entry.use, text=str(error).removeprefix(f"{entry.use}: ").splitlines()[0])
        return
    for line in source.report.lines():
        yield DataFinding(source=entry.use, text=line)
    count = min(_LOOKED_AT, len(source))
    examples = [source.task(at if source.endless else at * len(source) // count, 0) for at in range(count)]
    tasks = [example for example in examples if isinstance(example, Task)]
    without = sum(task.solution is None for task in tasks)
    if role == "train" and without and isinstance(stage, SFTConfig) and stage.thinking_share:
        yield DataFinding(
            source=entry.use,
            text=f"{without} of {counted(len(tasks), 'task')} have no solution, and {stage.name}.thinking_share is "
            f"{stage.thinking_share:g}: they train the answer alone",
        )
    if not source.endless:
        findings = [finding for task in tasks for finding in duplicates.check(task, role)]
        for code in dict.fromkeys(finding.code for finding in findings):
            same = [finding for finding in findings if finding.code == code]
            yield DataFinding(source=entry.use, text=f"{len(same)} x {code}: {same[0].task_id}: {same[0].message}")
