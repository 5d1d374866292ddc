"""Tasks or documents from a JSONL or Parquet file or a hub data set, read by the `datasets` library.

Every row is checked once when the data set is opened, its images by their headers only; a row that cannot be used is
skipped and counted. A file that breaks later, or breaks behind its header, is left out when it is rendered.
"""

from __future__ import annotations

import functools
import glob
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from configs.errors import UserError
from configs.json_io import parse_json
from configs.text import nearest_or_allowed
from rewards.images import BadImage, open_image
from rollouts.tasks.columns import (
    ColumnError,
    Columns,
    holds_documents,
    known_columns,
    map_columns,
    plain_rows,
    unused_images,
)
from rollouts.tasks.contents import TaskHash, contents_hash
from rollouts.tasks.document_rows import parse_document
from rollouts.tasks.documents import Example
from rollouts.tasks.image_cells import image_items, image_path
from rollouts.tasks.progress_bars import progress_bars
from rollouts.tasks.rows import FIELDS, FRAMES, BadRow, optional_text, parse_row
from rollouts.tasks.skip_report import SkipReport

FORMATS = {".jsonl": "text", ".parquet": "parquet"}  # file suffix -> loader of `datasets`
BATCH = 64  # rows read at a time while checking
_LARGE = 256 << 20  # bytes of a file that takes long enough to read for a progress bar


class DataSetError(UserError, ValueError):
    """A data set that cannot be used at all; the message says what to change."""


class DatasetTasks:
    """The usable rows of one data set, in the order of the file; pass a `columns` mapping where names differ from ours.

    Rows are tasks. Where `columns` has a field `text`, they are documents, and only `images` and `id` are read besides.

    `use` is a `.jsonl` or `.parquet` file (relative to `base`) or the name of a hub data set, `split` its split or a
    slice of it (`train[:90%]`), `subset` the hub data set's configuration, `verifier` that of rows which name none
    (without one, `math`), `frames` how many frames of a video a task shows at most. Raises DataSetError where no row is
    usable.
    """

    endless = False

    def __init__(
        self,
        use: str,
        *,
        base: Path,
        split: str = "train",
        columns: Mapping[str, str] | None = None,
        limit: int | None = None,
        verifier: str | None = None,
        subset: str | None = None,
        frames: int = FRAMES,
    ) -> None:
        path = _file(use, base)
        self.use, self.name = use, path.stem if path else use.rpartition("/")[2]
        self.report = SkipReport()
        self._prefix = ":".join([use, *([subset] if subset else []), *([split] if split != "train" else [])])
        self._path, self._folder, self._verifier = path, path.parent if path else None, verifier or "math"
        if frames < 1:
            raise DataSetError(f"{use}: options.frames = {frames!r}: must be 1 or more")
        self._given, self._frames = columns or {}, frames
        self._documents = holds_documents(self._given)
        if self._documents and verifier is not None:
            raise DataSetError(f"{use}: options.verifier = {verifier!r}: documents have no answer; leave it out")
        self._lines = path is not None and path.suffix == ".jsonl"
        self._rows = _open_file(path, split) if path else _open_hub(use, split, subset)
        if len(self._rows) == 0:
            raise DataSetError(f"{use}: the data set is empty (split {split})")
        self._columns = known_columns((), self._given)
        if not self._lines:
            self._columns = self._map_columns(self._rows.column_names)
            self._note_unused_images()
            self._rows = self._rows.select_columns(self._columns.used())
        self._hash = TaskHash()
        self._usable = self._check(limit)
        self.contents = self._hash.contents()

    def __len__(self) -> int:
        """Number of usable rows."""
        return len(self._usable)

    def task(self, index: int, seed: int) -> Example:
        """Usable row `index`, the same for every `seed`; an image that has vanished becomes `b""`."""
        del seed
        row, row_id = self._usable[index]
        return self._parse(self._columns.cells(self._read(row)), row_id, vanished_ok=True)

    def _map_columns(self, names: Sequence[str]) -> Columns:
        """The columns of each field. Raises DataSetError."""
        try:
            return map_columns(self.use, names, self._given)
        except ColumnError as error:
            raise DataSetError(str(error)) from error

    def _note_unused_images(self) -> None:
        """Note the columns of the first rows that hold images and are not used."""
        for name in unused_images(self._first_rows(), self._columns.used()):
            self.report.note(
                f"{self.name}: column {name!r} holds images and is not used; `columns: {{images: {name}}}` uses it"
            )

    def _first_rows(self) -> Iterator[Mapping[str, Any]]:
        """Some rows with all their columns; bad ones are left out."""
        for cells in itertools.islice(self._cells(), BATCH):
            with suppress(BadRow):
                yield self._row(cells)

    def _row(self, cells: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row itself: what a line of JSON holds, or the cells as they are. Raises BadRow."""
        if not self._lines:
            return cells
        line = cells["text"].removeprefix("\ufeff")  # a byte-order mark
        if "\ufffd" in line and not self._is_utf8:  # what the loader puts where bytes are not UTF-8
            raise BadRow("line is not UTF-8")
        return _json_object(line)

    @functools.cached_property
    def _is_utf8(self) -> bool:
        """Whether the whole file is UTF-8, so that a U+FFFD in it was written there."""
        assert self._path is not None
        try:
            with self._path.open(encoding="utf-8") as file:
                return all(True for _ in file)
        except UnicodeDecodeError:
            return False

    def _check(self, limit: int | None) -> list[tuple[int, str]]:
        """(row number, id) of the first `limit` usable rows, counting the others in the report."""
        from datasets.utils import tqdm

        usable: list[tuple[int, str]] = []
        seen: set[str] = set()
        names: dict[str, None] = {}  # the keys of JSON lines, as far as they were read; a dict, for the order
        rows = tqdm(self._cells(), total=len(self._rows), desc=f"checking {self.name}", unit=" rows", delay=2)
        for number, cells in enumerate(rows):
            if limit is not None and len(usable) == limit and not self._wants_more(names):
                break
            if cells.get("text") == "" and self._lines:
                continue  # a blank line
            try:
                row_id = self._check_row(self._known(self._row(cells), names), number, seen)
            except (BadRow, BadImage) as error:
                self.report.add(self.name, error.reason, f"row {number}{': ' * bool(error.detail)}{error.detail}"[:120])
            else:
                seen.add(row_id)
                usable.append((number, row_id))
        if self._lines:
            self._columns = self._map_columns(list(names))
            self._note_unused_images()
        if not usable:
            kind = "document" if self._documents else "task"
            raise DataSetError("\n  ".join([f"{self.use}: no row can become a {kind}", *self.report.lines()]))
        return usable[:limit]

    def _wants_more(self, names: Mapping[str, None]) -> bool:
        """Whether the recipe names a column that no line had so far: a later one may have it."""
        return self._lines and any(column and column not in names for column in self._given.values())

    def _known(self, row: Mapping[str, Any], names: dict[str, None]) -> Mapping[str, Any]:
        """The row by our fields; the columns of JSON lines are those of the lines so far."""
        if self._lines and not row.keys() <= names.keys():
            names.update(dict.fromkeys(row))
            self._columns = known_columns(list(names), self._given)
        return self._columns.cells(row)

    def _check_row(self, row: Mapping[str, Any], number: int, seen: set[str]) -> str:
        """The id of a good row. Raises BadRow or BadImage."""
        row_id = optional_text(row, "id") or str(number)
        if row_id in seen:
            raise BadRow("id was seen before", row_id)
        task = self._parse(row, row_id)
        _check_images(row, task)
        self._hash.add(task)
        return row_id

    def _parse(self, row: Mapping[str, Any], row_id: str, *, vanished_ok: bool = False) -> Example:
        row_id = f"{self._prefix}/{row_id}"
        if self._documents:
            return parse_document(
                row, document_id=row_id, source=self.name, folder=self._folder, vanished_ok=vanished_ok
            )
        return parse_row(
            row,
            task_id=row_id,
            source=self.name,
            columns={field: field for field in FIELDS},
            folder=self._folder,
            verifier=self._verifier,
            frames=self._frames,
            vanished_ok=vanished_ok,
        )

    def _cells(self) -> Iterator[dict[str, Any]]:
        """All rows as plain Python; the arrow format keeps `datasets` from decoding images."""
        for batch in self._rows.with_format("arrow").iter(batch_size=BATCH):
            yield from plain_rows(batch)

    def _read(self, row: int) -> Mapping[str, Any]:
        return self._row(plain_rows(self._rows.with_format("arrow")[row])[0])


def _check_images(row: Mapping[str, Any], example: Example) -> None:
    """Read the headers of the images. Raises BadImage with the path that the row names, where it names one."""
    names = [image_path(item) for item in image_items(row.get("images"))]
    for at, data in enumerate(example.images):
        try:
            open_image(data)
        except BadImage as error:
            name = names[at] if at < len(names) else None
            raise BadImage(error.reason, f"{name[:80]}: {error.detail}" if name else error.detail) from error


def _json_object(line: str) -> dict[str, Any]:
    """The object on a line of JSONL. Raises BadRow."""
    try:
        value = parse_json(line)
    except ValueError as error:
        raise BadRow("line is not JSON", str(error)) from error
    if not isinstance(value, dict):
        raise BadRow("line is not a JSON object", line[:40])
    return value


def _file(use: str, base: Path) -> Path | None:
    """The file that `use` names, or None for a hub name. Raises DataSetError for a file of another format."""
    path = base / Path(use).expanduser()
    if path.suffix in FORMATS:
        return path
    if path.exists() or use.startswith((".", "/", "~")) or path.suffix in {".json", ".csv", ".tsv", ".txt"}:
        kind = {".json": "json", ".csv": "csv"}.get(path.suffix)
        how = f", for example datasets.Dataset.from_{kind}({use!r}).to_json('{path.stem}.jsonl')" if kind else ""
        raise DataSetError(
            f"{use}: data files end in {' or '.join(FORMATS)}; convert it, one JSON object on each line{how}"
        )
    return None


def _open_file(path: Path, split: str) -> Any:
    """Open a file as a `datasets.Dataset`, JSON lines as a column `text`. Raises DataSetError."""
    from datasets import load_dataset

    if path.exists() and not path.is_file():
        raise DataSetError(f"{path}: must be a file, not a folder, a device, a pipe or a socket")
    if not path.is_file():
        if not path.parent.is_dir():
            raise DataSetError(f"{path}: there is no folder {path.parent}")
        names = sorted(file.name for file in path.parent.iterdir() if file.suffix in FORMATS)
        raise DataSetError(f"{path}: no such file{nearest_or_allowed(path.name, names)}")
    if path.stat().st_size == 0:
        raise DataSetError(f"{path}: the data set is empty (0 bytes)")
    if split != "train" and not split.startswith("train["):
        raise DataSetError(
            f"{path}: split = {split!r}: a file has one split, train; "
            "name another file, or divide this one into train[:90%] and train[90%:]"
        )
    loader = FORMATS[path.suffix]
    options: dict[str, Any] = {"encoding_errors": "replace"} if loader == "text" else {}
    try:
        # The contents name the copy in the cache of `datasets`, which knows a file by its time of change alone.
        name = f"{path.stat().st_size}-{contents_hash(path)}"
        with progress_bars(path.stat().st_size > _LARGE):
            return load_dataset(loader, name, data_files={"train": glob.escape(str(path))}, split=split, **options)
    except Exception as error:  # the loaders' errors share no type
        if "corresponds to no data" in str(error):
            raise DataSetError(f"{path}: the data set is empty (split {split})") from error
        raise DataSetError(f"{path}: cannot be read as {path.suffix[1:]} ({error.__cause__ or error})") from error


def _open_hub(name: str, split: str, subset: str | None) -> Any:
    """Open a split of a hub data set, or of a folder that `datasets` can load. Raises DataSetError."""
    from datasets import load_dataset

    try:
        return load_dataset(name, subset, split=split)
    except Exception as error:  # network, name, split and subset errors share no type
        raise DataSetError(
            f"{name}: cannot be loaded from the hub ({error}). "
            f"For a file of your own, write a path that ends in {' or '.join(FORMATS)}"
        ) from error
