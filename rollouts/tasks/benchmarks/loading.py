"""The rows of a benchmark, from a file, a folder as the hub has it, or the hub; and the tasks that they become."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet

from configs.errors import UserError
from configs.files import read_bytes
from configs.json_io import parse_json
from configs.text import nearest_or_allowed, one_line
from rewards.images import BadImage, open_image
from rollouts.tasks.benchmarks.layout import Benchmark, Item, Place, Row, to_item
from rollouts.tasks.benchmarks.table import BENCHMARKS
from rollouts.tasks.columns import plain_rows
from rollouts.tasks.rows import BadRow
from rollouts.tasks.skip_report import SkipReport

SUFFIXES = (".parquet", ".jsonl", ".json")
_BATCH = 16  # rows read at a time
_SPEC = re.compile(r"(?P<name>\w+)(?:@(?P<split>[\w-]+))?(?:=(?P<path>.+))?", re.DOTALL)
_MOST_BYTES = 2**30  # of a JSON file, which is read whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A benchmark as the user names it: `mathvista`, `mathvista@test`, `mathvista=/data/MathVista`."""

    name: str
    benchmark: Benchmark
    split: str
    path: Path | None  # a file or a folder; None: the hub


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A row that cannot become a task."""

    id: str
    number: int
    reason: str
    detail: str


def choose(spec: str) -> Chosen:
    """The benchmark that `NAME[@SPLIT][=PATH]` names. Raises UserError."""
    match = _SPEC.fullmatch(spec)
    name = match["name"] if match else spec
    if match is None or name not in BENCHMARKS:
        raise UserError(f"--benchmark {spec}: unknown{nearest_or_allowed(name, BENCHMARKS)}; write NAME[@SPLIT][=PATH]")
    path = Path(match["path"]).expanduser() if match["path"] else None
    if path is not None and not path.exists():
        raise UserError(f"--benchmark {spec}: no such file or folder: {path}")
    benchmark = BENCHMARKS[name]
    return Chosen(name=name, benchmark=benchmark, split=match["split"] or benchmark.split, path=path)


class BenchmarkTasks:
    """The questions of a benchmark, one after the other; images and videos are read when their question comes.

    `report` counts the rows that were left out in the last pass. Raises UserError where there is no data.
    """

    def __init__(self, chosen: Chosen, *, frames: int = 32, limit: int | None = None) -> None:
        self.chosen, self.report = chosen, SkipReport()
        self._frames, self._limit = frames, limit
        self._parts = _hub_parts(chosen) if chosen.path is None else _local_parts(chosen, chosen.path)
        self._rows = sum(part.length for part in self._parts)
        if not self._rows:
            raise UserError(f"{chosen.name}: the data has no rows")

    def __len__(self) -> int:
        """Number of rows, those that will be left out among them."""
        return self._rows if self._limit is None else min(self._limit, self._rows)

    def __iter__(self) -> Iterator[Item | LeftOut]:
        """Every row as a task, or as the reason why it is none."""
        self.report = SkipReport()
        seen: set[str] = set()
        for row, place in self._places():
            try:
                item = self._item(row, place, seen)
            except (BadRow, BadImage) as error:
                row_id = str(row.get("id") or row.get("pid") or row.get("sample_index") or place.number)
                detail = f"row {place.number}{': ' * bool(error.detail)}{error.detail}"[:120]
                self.report.add(self.chosen.name, error.reason, detail)
                yield LeftOut(id=row_id[:200], number=place.number, reason=error.reason, detail=detail)
            else:
                seen.add(item.task.id)
                yield item

    def _item(self, row: Row, place: Place, seen: set[str]) -> Item:
        item = to_item(self.chosen.benchmark.read(row, place), self.chosen.name, place)
        if item.task.id in seen:
            raise BadRow("id was seen before", item.task.id)
        for data in item.task.images:
            open_image(data)
        return item

    def _places(self) -> Iterator[tuple[Row, Place]]:
        number = 0
        for part in self._parts:
            for row in part.rows():
                if number == len(self):
                    return
                yield row, Place(number=number, folder=part.folder, subset=part.subset, frames=self._frames)
                number += 1


class _Part:
    """The rows of one file, or of one subset of a hub data set."""

    def __init__(self, source: Any, length: int, *, folder: Path | None, subset: str) -> None:
        self._source, self.length, self.folder, self.subset = source, length, folder, subset

    def rows(self) -> Iterator[Mapping[str, Any]]:
        """The rows as plain Python."""
        if isinstance(self._source, list):
            yield from self._source
        elif isinstance(self._source, parquet.ParquetFile):
            for batch in self._source.iter_batches(batch_size=_BATCH):
                yield from plain_rows(batch)  # pyright: ignore[reportArgumentType]  # a batch reads as a table does
        else:  # the arrow format keeps `datasets` from decoding images
            for batch in self._source.with_format("arrow").iter(batch_size=_BATCH):
                yield from plain_rows(batch)


def _hub_parts(chosen: Chosen) -> list[_Part]:
    from datasets import load_dataset

    parts = []
    for subset in chosen.benchmark.subsets or (None,):
        try:
            rows: Any = load_dataset(chosen.benchmark.hub, subset, split=chosen.split)
        except Exception as error:  # network, name, split and subset errors share no type
            raise UserError(
                f"{chosen.name}: {chosen.benchmark.hub} (split {chosen.split}) cannot be loaded from the hub: "
                f"{one_line(error)}; for a copy of your own, write {chosen.name}=FOLDER"
            ) from error
        parts.append(_Part(rows, len(rows), folder=None, subset=subset or ""))
    return parts


def _local_parts(chosen: Chosen, path: Path) -> list[_Part]:
    if path.is_file():
        return _file_parts(path, chosen)
    files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and file.is_file())
    of_split = [file for file in files if re.fullmatch(rf"{re.escape(chosen.split)}(?:[-_.].*)?", file.stem)]
    inside = [file for file in of_split if _subset_of(file, chosen)]
    found = inside if chosen.benchmark.subsets and inside else of_split
    if not found:
        names = ", ".join(str(file.relative_to(path)) for file in files[:6])
        raise UserError(
            f"{chosen.name}: {path} has no file of the split {chosen.split} ({chosen.split}*.parquet, .jsonl or .json)"
            f"{f'; it has {names}' if names else ''}; name the file itself, or the split: {chosen.name}@SPLIT={path}"
        )
    return [part for file in found for part in _file_parts(file, chosen)]


def _subset_of(file: Path, chosen: Chosen) -> str:
    """The subset whose folder the file is in, or that its name says."""
    names = (file.parent.name, file.stem.partition("_")[0].capitalize(), file.stem)
    return next((name for name in names if name in chosen.benchmark.subsets), "")


def _file_parts(file: Path, chosen: Chosen) -> list[_Part]:
    """The rows of one file. Raises UserError for a file of another format, or a broken one."""
    subset, folder = _subset_of(file, chosen), file.parent
    try:
        if file.suffix == ".parquet":
            table = parquet.ParquetFile(file)
            return [_Part(table, table.metadata.num_rows, folder=folder, subset=subset)]
        if file.suffix == ".jsonl":
            lines = read_bytes(file, limit=_MOST_BYTES).decode("utf-8-sig").split("\n")
            return [_list_part([parse_json(line) for line in lines if line.strip()], folder, subset)]
        if file.suffix == ".json":
            return list(_json_parts(parse_json(read_bytes(file, limit=_MOST_BYTES)), folder, subset))
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise UserError(f"{file}: cannot be read as {file.suffix[1:]}: {one_line(error)}") from error
    raise UserError(f"{file}: data files end in {', '.join(SUFFIXES)}")


def _json_parts(value: Any, folder: Path, subset: str) -> Iterator[_Part]:
    """A list of rows; rows by their ids, as MathVista's; or such rows by subset, as Video-MMMU's."""
    if isinstance(value, list):
        yield _list_part(value, folder, subset)
    elif isinstance(value, dict) and value and all(isinstance(row, dict) for row in value.values()):
        if all(isinstance(cell, dict) for row in value.values() for cell in row.values()):
            for name, rows in value.items():
                yield from _json_parts(rows, folder, name)
        else:
            yield _list_part(list(value.values()), folder, subset)
    else:
        raise ValueError("it is neither a list of rows nor rows by their ids")


def _list_part(rows: list[Any], folder: Path, subset: str) -> _Part:
    if wrong := [number for number, row in enumerate(rows, 1) if not isinstance(row, dict)]:
        raise ValueError(f"row {wrong[0]} is no JSON object")
    return _Part(rows, len(rows), folder=folder, subset=subset)
