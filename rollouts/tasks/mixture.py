"""From the `data` section of a recipe to tasks: one source for each entry, and a weighted mixture of them."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from configs.data import SourceConfig
from configs.text import nearest_names
from rewards.plugins.loading import plugin_file
from rewards.types import Task
from rollouts.tasks.dataset import FORMATS, DataSetError, DatasetTasks
from rollouts.tasks.digit_sums import DigitSums
from rollouts.tasks.easy_vqa import EasyVQA
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.task_file import TaskFile

BUILT_IN: Mapping[str, Callable[..., Any]] = {"digit_sums": DigitSums, "easy_vqa": EasyVQA}
APART = 0.05  # share of the rows of a finite source that is set apart where a recipe has no validation tasks
BUCKETS = 8  # an epoch shuffles within these parts of a source: a row returns after 7/8 of an epoch at the earliest


TaskPart = Literal["all", "train", "validation"]


class TaskSource(Protocol):
    """An indexed sequence of tasks."""

    name: str  # for `Task.source`, and so for the metrics of each source
    report: SkipReport

    @property
    def endless(self) -> bool:
        """True where every index gives a new task, so that there are no epochs."""
        ...

    def __len__(self) -> int:
        """How many indices there are."""
        ...

    def task(self, index: int, seed: int) -> Task:
        """Task `index`; the same arguments give the same task."""
        ...


class Limited:
    """The first `limit` tasks of a source, as one with epochs."""

    endless = False

    def __init__(self, source: TaskSource, limit: int) -> None:
        self.name, self.report = source.name, source.report
        self._source, self._length = source, min(limit, len(source))

    def __len__(self) -> int:
        """At most `limit`."""
        return self._length

    def task(self, index: int, seed: int) -> Task:
        """Task `index` of the source."""
        return self._source.task(index, seed)


class Part:
    """The rows of a finite source that are trained on, or those that are set apart to choose the best checkpoint.

    Which rows are apart depends on the source's name and the row's number alone, so it is the same for every stage,
    every seed and after a resume. It is one row in `1 / APART` or so, and at least one where there are two.
    """

    endless = False

    def __init__(self, source: TaskSource, part: Literal["train", "validation"]) -> None:
        self.name, self.report = source.name, source.report
        keys = [int.from_bytes(hashlib.sha256(f"{source.name}/{i}".encode()).digest()[:8]) for i in range(len(source))]
        apart = {i for i, key in enumerate(keys) if key < APART * 2**64}
        if not apart and len(keys) > 1:
            apart = {min(range(len(keys)), key=keys.__getitem__)}
        self._source = source
        self._rows = [i for i in range(len(keys)) if (i in apart) == (part == "validation")]

    def __len__(self) -> int:
        """Number of rows of this part."""
        return len(self._rows)

    def task(self, index: int, seed: int) -> Task:
        """Task `index` of the part."""
        return self._source.task(self._rows[index], seed)


def build_source(config: SourceConfig, *, base: Path) -> TaskSource:
    """Build the source that a recipe's entry describes; file names are relative to `base`.

    Raises DataSetError for unknown built-ins and options, and for data that cannot be used.
    """
    made: Callable[..., TaskSource]
    in_python = plugin_file(config.use) is not None
    if config.columns and (in_python or config.use in BUILT_IN):
        what = "a task file" if in_python else "a built-in"
        raise DataSetError(f"{config.use}: columns = {config.columns!r}: {what} has no columns; leave them out")
    if in_python:
        return TaskFile(config.use, split=config.split, base=base, limit=config.limit, options=config.options)
    if config.use in BUILT_IN:
        made, fixed = BUILT_IN[config.use], {"split": config.split}
    else:
        near = nearest_names(config.use, BUILT_IN)
        if near and "/" not in config.use and Path(config.use).suffix not in FORMATS:
            raise DataSetError(f"use = {config.use!r}: unknown; did you mean {near[0]}?")
        fixed = {"split": config.split, "base": base, "columns": config.columns, "limit": config.limit}
        made = functools.partial(DatasetTasks, config.use)
    allowed = [name for name in inspect.signature(made).parameters if name not in {"use", *fixed, "split"}]
    for option in config.options:
        if option not in allowed:
            raise DataSetError(f"{config.use}: options.{option}: unknown; the options are {', '.join(allowed)}")
    source = made(**fixed, **config.options)
    return source if config.limit is None else Limited(source, config.limit)


class TaskMixture:
    """Sources mixed by weight: over any number of draws, each has had its share to within a task or so.

    `seed` reorders every finite source in each epoch, and picks the tasks of the endless ones. `base` is the folder
    where relative file names start. `part` leaves out the rows of finite sources that are set apart, or all others; an
    endless source gives each seed tasks of its own. `report` counts the rows that were left out.
    """

    def __init__(self, configs: Sequence[SourceConfig], *, seed: int, base: Path, part: TaskPart = "all") -> None:
        _refuse_twins(configs)
        sources = [build_source(config, base=base) for config in configs]
        self.sources = [s if part == "all" or s.endless else Part(s, part) for s in sources]
        self.names = _unique_names(self.sources)
        self.report = SkipReport()
        for source in self.sources:
            self.report.merge(source.report)
        self._seed = seed
        self._weights = [config.weight for config in configs]
        self._prompts = [config.prompt for config in configs]
        self._counted, self._counts = 0, [0] * len(configs)

    def draw(self, step: int, n: int) -> list[Task]:
        """Return the `n` tasks of `step`, in mixed order; they depend on the seed and the arguments alone.

        With the same `n` at every step, a finite source is walked in epochs, every row once in each. No task comes
        twice in one step as long as a step takes at most 7/8 of a source; a smaller source must repeat itself.
        """
        if n == 0:
            return []  # and no step back in the walk, which would be counted again
        before, after = self._shares(step * n), self._shares((step + 1) * n)
        tasks = [self._task(i, at) for i in range(len(before)) for at in range(before[i], after[i])]
        random.Random(f"{self._seed}/{step}").shuffle(tasks)
        return tasks

    def fixed(self, limit: int) -> list[Task]:
        """Return at most `limit` different tasks, mixed by weight; where a source is too small, the others fill up."""
        return [self.at(place) for place in self.places(limit)]

    def places(self, limit: int) -> list[tuple[int, int]]:
        """Where the tasks of `fixed` are, for `at`: (source, position)."""
        taken = [0] * len(self.sources)
        places: list[tuple[int, int]] = []
        for _ in range(limit):
            left = [i for i, source in enumerate(self.sources) if taken[i] < len(source)]
            if not left:
                break
            i = min(left, key=lambda i: (taken[i] + 0.5) / self._weights[i])
            places.append((i, taken[i]))
            taken[i] += 1
        return places

    def at(self, place: tuple[int, int]) -> Task:
        """The task at one of `places`; always the same one."""
        return self._task(*place)

    def _shares(self, drawn: int) -> list[int]:
        """How many of the first `drawn` tasks come from each source: always the one furthest behind is next."""
        if drawn < self._counted:
            self._counted, self._counts = 0, [0] * len(self.sources)
        counts, weights = self._counts, self._weights
        for _ in range(drawn - self._counted):
            counts[min(range(len(counts)), key=lambda i: (counts[i] + 0.5) / weights[i])] += 1
        self._counted = drawn
        return list(counts)

    def _task(self, i: int, position: int) -> Task:
        """The task at a position of the walk through source `i`."""
        source, name = self.sources[i], self.names[i]
        if source.endless:
            row = position
        else:
            epoch, offset = divmod(position, len(source))
            bucket, place = divmod(offset, _bucket_size(len(source)))
            row = _bucket(f"{self._seed}/{name}", len(source), epoch, bucket)[place]
        task = source.task(row, self._seed)
        if (prompt := self._prompts[i]) is not None:
            task = dataclasses.replace(task, system=prompt.system, template=prompt.template)
        # Sources of one name would share their ids as well as their metrics.
        return task if name == task.source else dataclasses.replace(task, source=name, id=f"{name}/{task.id}")


def held_out(configs: Sequence[SourceConfig], limit: int, seed: int, *, base: Path) -> list[Task]:
    """Return the fixed list of at most `limit` different held-out tasks. Raises DataSetError as `build_source` does."""
    return TaskMixture(configs, seed=seed, base=base).fixed(limit)


def _bucket_size(length: int) -> int:
    return -(-length // BUCKETS)


@functools.lru_cache(maxsize=64)
def _order(key: str, length: int) -> tuple[int, ...]:
    """The rows of a source in the order that `key` gives them for good; its parts are the buckets."""
    rows = list(range(length))
    random.Random(key).shuffle(rows)
    return tuple(rows)


@functools.lru_cache(maxsize=64)
def _bucket(key: str, length: int, epoch: int, bucket: int) -> tuple[int, ...]:
    """The rows of a bucket in their order in an epoch.

    Only the order inside a bucket changes from epoch to epoch, so that a step that reaches into the next epoch does not
    meet the rows again that it has just had; a plain shuffle would.
    """
    size = _bucket_size(length)
    rows = list(_order(key, length)[bucket * size : (bucket + 1) * size])
    random.Random(f"{key}/{epoch}/{bucket}").shuffle(rows)
    return tuple(rows)


def _refuse_twins(configs: Sequence[SourceConfig]) -> None:
    """Raise DataSetError where two entries would give the same tasks."""
    seen = []
    for config in configs:
        entry = (config.use, config.split, config.columns, config.options, config.prompt)
        if entry in seen:
            raise DataSetError(f"{config.use} is listed twice: give one entry the sum of the weights")
        seen.append(entry)


def _unique_names(sources: Sequence[TaskSource]) -> list[str]:
    """The names of the sources, numbered where several have the same: `train`, `train-2`."""
    names: list[str] = []
    for source in sources:
        same = sum(other.name == source.name for other in sources[: len(names)])
        names.append(source.name if same == 0 else f"{source.name}-{same + 1}")
    return names
