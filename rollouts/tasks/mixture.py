"""From the `data` section of a recipe to examples: sources mixed by weight."""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar, cast

from configs.data import SourceConfig
from rewards.types import Task
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.documents import Document, Example
from rollouts.tasks.skip_report import SkipReport
from rollouts.tasks.source import Part, TaskSource, build_source, source_contents, source_key

BUCKETS = 8  # an epoch shuffles within these parts of a source: a row returns after 7/8 of an epoch at the earliest


TaskPart = Literal["all", "train", "validation"]
E = TypeVar("E", bound=Example)


class Mixture(Generic[E]):
    """Sources mixed by weight: over any number of draws, each has had its share to within an example or so.

    `seed` reorders every finite source in each epoch, and picks the tasks of the endless ones. `base` is the folder
    where relative file names start. `part` leaves out the rows of finite sources that are set apart, or all others; an
    endless source gives each seed examples of its own. `report` counts the rows that were left out; `contents` holds
    the hash of each source's examples by its `source_key`. Where a source has a `final_weight`, its weight goes there
    in a straight line over the first `total` examples.
    """

    def __init__(
        self,
        configs: Sequence[SourceConfig],
        *,
        seed: int,
        base: Path,
        part: TaskPart = "all",
        total: int | None = None,
    ) -> None:
        _refuse_twins(configs)
        sources = [build_source(config, base=base) for config in configs]
        hashed = {source_key(c): source_contents(s) for c, s in zip(configs, sources, strict=True)}
        self.contents = {key: value for key, value in hashed.items() if value is not None}
        self.sources = [s if part == "all" or s.endless else Part(s, part) for s in sources]
        self.names = _unique_names(self.sources)
        self.report = SkipReport()
        for source in self.sources:
            self.report.merge(source.report)
        self._seed = seed
        self._weights = [config.weight for config in configs]
        self._targets = _Targets(configs, total)
        self._prompts = [config.prompt for config in configs]
        self._bare = [not config.solutions for config in configs]
        self._counted, self._counts = 0, [0] * len(configs)

    def draw(self, step: int, n: int) -> list[E]:
        """Return the `n` examples of `step`, in mixed order; they depend on the seed and the arguments alone.

        With the same `n` at every step, a finite source is walked in epochs, every row once in each. No example comes
        twice in one step as long as a step takes at most 7/8 of a source; a smaller source must repeat itself.
        """
        if n == 0:
            return []  # and no step back in the walk, which would be counted again
        before, after = self._shares(step * n), self._shares((step + 1) * n)
        tasks = [self._task(i, at) for i in range(len(before)) for at in range(before[i], after[i])]
        random.Random(f"{self._seed}/{step}").shuffle(tasks)
        return tasks

    def fixed(self, limit: int) -> list[E]:
        """Return at most `limit` different examples, mixed by weight. Where a source is too small, others fill up."""
        return [self.at(place) for place in self.places(limit)]

    def places(self, limit: int) -> list[tuple[int, int]]:
        """Where the examples of `fixed` are, for `at`: (source, position)."""
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

    def at(self, place: tuple[int, int]) -> E:
        """The example at one of `places`; always the same one."""
        return self._task(*place)

    def _shares(self, drawn: int) -> list[int]:
        """How many of the first `drawn` examples come from each source: always the one furthest behind is next."""
        if drawn < self._counted:
            self._counted, self._counts = 0, [0] * len(self.sources)
        counts = self._counts
        for number in range(self._counted, drawn):
            targets = self._targets.after(number)
            counts[min(range(len(counts)), key=lambda i: (counts[i] + 0.5) / targets[i])] += 1
        self._counted = drawn
        return list(counts)

    def _task(self, i: int, position: int) -> E:
        """The example at a position of the walk through source `i`."""
        source, name = self.sources[i], self.names[i]
        if source.endless:
            row = position
        else:
            epoch, offset = divmod(position, len(source))
            bucket, place = divmod(offset, _bucket_size(len(source)))
            row = _bucket(f"{self._seed}/{name}", len(source), epoch, bucket)[place]
        example = source.task(row, self._seed)
        if (prompt := self._prompts[i]) is not None and isinstance(example, Task):
            example = dataclasses.replace(example, system=prompt.system, template=prompt.template)
        if self._bare[i] and isinstance(example, Task):
            example = dataclasses.replace(example, solution=None)
        if name != example.source:  # sources of one name would share their ids as well as their metrics
            example = dataclasses.replace(example, source=name, id=f"{name}/{example.id}")
        return cast(E, example)


class TaskMixture(Mixture[Task]):
    """A mixture of tasks alone. Raises DataSetError for a source of documents: it has no questions and no answers."""

    def __init__(self, configs: Sequence[SourceConfig], *, seed: int, base: Path, part: TaskPart = "all") -> None:
        super().__init__(configs, seed=seed, base=base, part=part)
        for source in self.sources:
            if len(source) and isinstance(source.task(0, seed), Document):
                raise DataSetError(
                    f"{source.name} has documents, without questions and answers: list it in the data of a "
                    "pre-training stage, or map columns to `question` and `answer`"
                )


class _Targets:
    """How much of the examples each source should have had, in proportion; from moving weights, their sum so far."""

    def __init__(self, configs: Sequence[SourceConfig], total: int | None) -> None:
        self._first, self._total = [config.weight for config in configs], total
        last = [config.last_weight for config in configs]
        self._moves = total is not None and self._first != last
        if self._moves:  # shares of 1 at both ends, and so at every moment between them
            self._first = [weight / sum(self._first) for weight in self._first]
        self._last = [weight / sum(last) for weight in last]

    def after(self, drawn: int) -> list[float]:
        """The targets when `drawn` examples were drawn and one more is chosen."""
        if not self._moves or self._total is None:
            return self._first
        done = min(1.0, (drawn + 1) / self._total)
        beyond = max(0.0, (drawn + 1) / self._total - 1)
        return [
            done * (first + (last - first) * done / 2) + beyond * last
            for first, last in zip(self._first, self._last, strict=True)
        ]


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
