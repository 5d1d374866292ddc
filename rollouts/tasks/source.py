"""One source of examples for each entry of a recipe's `data` section. `BUILT_IN` is the table of our own sources."""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from configs.data import SourceConfig
from configs.text import nearest_names
from rewards.plugins.loading import plugin_file
from rollouts.tasks.charts import Charts
from rollouts.tasks.dataset import FORMATS, DataSetError, DatasetTasks
from rollouts.tasks.digit_captions import DigitCaptions
from rollouts.tasks.digit_sums import DigitSums
from rollouts.tasks.documents import Example
from rollouts.tasks.easy_vqa import EasyVQA
from rollouts.tasks.emoji import EmojiPictures
from rollouts.tasks.long_documents import LongDocuments
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.task_file import TaskFile
from rollouts.tasks.text_math import TextMath
from rollouts.tasks.text_sums import TextSums
from rollouts.tasks.wikipedia_leads import WikipediaLeads

BUILT_IN: Mapping[str, Callable[..., Any]] = {
    "charts": Charts,
    "digit_captions": DigitCaptions,
    "digit_sums": DigitSums,
    "easy_vqa": EasyVQA,
    "emoji": EmojiPictures,
    "long_documents": LongDocuments,
    "text_math": TextMath,
    "text_sums": TextSums,
    "wikipedia_leads": WikipediaLeads,
}
APART = 0.05  # share of the rows of a finite source that is set apart where a recipe has no validation tasks


class TaskSource(Protocol):
    """An indexed sequence of tasks, or of documents."""

    name: str  # the `source` of its examples, and so of the metrics of each source
    report: SkipReport

    @property
    def endless(self) -> bool:
        """True where every index gives a new example, so that there are no epochs."""
        ...

    def __len__(self) -> int:
        """How many indices there are."""
        ...

    def task(self, index: int, seed: int) -> Example:
        """Example `index`; the same arguments give the same one."""
        ...


class Limited:
    """The first `limit` tasks of a source, as one with epochs."""

    endless = False

    def __init__(self, source: TaskSource, limit: int) -> None:
        self.name, self.report, self.contents = source.name, source.report, source_contents(source)
        self._source, self._length = source, min(limit, len(source))

    def __len__(self) -> int:
        """At most `limit`."""
        return self._length

    def task(self, index: int, seed: int) -> Example:
        """Task `index` of the source."""
        return self._source.task(index, seed)


class Part:
    """The rows of a finite source that are trained on, or those that are set apart to choose the best checkpoint.

    Which rows are apart depends on the source's name and the row's number alone, so it is the same for every stage,
    every seed and after a resume. It is one row in `1 / APART` or so, and at least one where there are two.
    """

    endless = False

    def __init__(self, source: TaskSource, part: Literal["train", "validation"]) -> None:
        self.name, self.report, self.contents = source.name, source.report, source_contents(source)
        keys = [int.from_bytes(hashlib.sha256(f"{source.name}/{i}".encode()).digest()[:8]) for i in range(len(source))]
        apart = {i for i, key in enumerate(keys) if key < APART * 2**64}
        if not apart and len(keys) > 1:
            apart = {min(range(len(keys)), key=keys.__getitem__)}
        self._source = source
        self._rows = [i for i in range(len(keys)) if (i in apart) == (part == "validation")]

    def __len__(self) -> int:
        """Number of rows of this part."""
        return len(self._rows)

    def task(self, index: int, seed: int) -> Example:
        """Task `index` of the part."""
        return self._source.task(self._rows[index], seed)


def source_contents(source: TaskSource) -> Mapping[str, int | str] | None:
    """`TaskHash.contents` of a source that reads data; None where ThinkVL's own code makes the examples."""
    return getattr(source, "contents", None)


def source_key(config: SourceConfig) -> str:
    """What distinguishes the examples of a source. Example: `tasks of rows.jsonl (train, limit 100)`."""
    parts = [config.split, *([f"limit {config.limit}"] if config.limit else [])]
    parts += [json.dumps(value, sort_keys=True) for value in (config.columns, config.options) if value]
    return f"tasks of {config.use} ({', '.join(parts)})"


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
