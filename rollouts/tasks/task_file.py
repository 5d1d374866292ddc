"""Tasks made by a Python function of the user: `use: file.py:function`."""

from __future__ import annotations

import inspect
import io
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from configs.text import nearest_or_allowed
from rewards.images import BadImage, open_image
from rewards.plugins.interface import PluginError
from rewards.plugins.loading import load_function
from rollouts.tasks.contents import TaskHash
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.document_rows import DOCUMENT_FIELDS, parse_document
from rollouts.tasks.documents import Example
from rollouts.tasks.rows import FIELDS, BadRow, optional_text, parse_row
from rollouts.tasks.skip_report import SkipReport


class TaskFile:
    """The rows that `function(split=..., **options)` of a file yields, checked like those of a data file.

    A row is a mapping with the fields of a JSONL row, or with those of a document: `text`, `images`, `id`. An image may
    also be a Pillow image. Relative image paths start at the file's folder. At most `limit` rows are taken. The
    function must yield the same rows whenever it is called: a resumed run calls it again. Raises DataSetError where the
    function cannot be found or run, or no row is usable.
    """

    endless = False

    def __init__(self, use: str, *, split: str, base: Path, limit: int | None, options: Mapping[str, Any]) -> None:
        function, file = _load(use, base)
        self.name, self.report = file.stem, SkipReport()
        self._use, self._folder = use, file.parent
        _check_options(use, function, options)
        self._tasks: list[Example] = []
        seen: set[str] = set()
        try:
            rows = itertools.islice(iter(function(split=split, **options)), limit)
            for number, row in enumerate(rows):
                self._add(row, number, seen)
        except Exception as error:  # the user's code raises anything
            raise DataSetError(f"{use}: {function.__name__} failed: {type(error).__name__}: {error}") from error
        if not self._tasks:
            raise DataSetError("\n  ".join([f"{use}: no row of split {split!r} is a task", *self.report.lines()]))
        tasks = TaskHash()
        for task in self._tasks:
            tasks.add(task)
        self.contents = tasks.contents()

    def __len__(self) -> int:
        """Number of usable rows."""
        return len(self._tasks)

    def task(self, index: int, seed: int) -> Example:
        """Task `index`, the same for every `seed`."""
        del seed
        return self._tasks[index]

    def _add(self, row: Any, number: int, seen: set[str]) -> None:
        try:
            task = self._parse(row, number)
            if task.id in seen:
                raise BadRow("id was seen before", task.id)
            for data in task.images:
                open_image(data)
        except (BadRow, BadImage) as error:
            self.report.add(self.name, error.reason, f"row {number}{': ' * bool(error.detail)}{error.detail}"[:120])
        else:
            seen.add(task.id)
            self._tasks.append(task)

    def _parse(self, row: Any, number: int) -> Example:
        if not isinstance(row, Mapping):
            raise BadRow("row is not a mapping", type(row).__name__)
        fields = DOCUMENT_FIELDS if "text" in row else FIELDS
        if unknown := [key for key in row if key not in fields]:
            raise BadRow(f"unknown field {unknown[0]!r}{nearest_or_allowed(str(unknown[0]), fields)}")
        images = row.get("images")
        images = images if isinstance(images, list | tuple) or images is None else [images]
        row = {**row, "images": images and [_png(image) for image in images]}
        row_id = f"{self._use}/{optional_text(row, 'id') or number}"
        if "text" in row:
            return parse_document(row, document_id=row_id, source=self.name, folder=self._folder)
        return parse_row(
            row,
            task_id=row_id,
            source=self.name,
            columns={field: field for field in FIELDS},
            folder=self._folder,
            verifier="math",
        )


def _load(use: str, base: Path) -> tuple[Callable[..., Any], Path]:
    """The function and its file. Raises DataSetError."""
    try:
        function, file = load_function(f"tasks {use!r}", use, base=base)
    except PluginError as error:
        raise DataSetError(str(error)) from error
    if not callable(function):
        raise DataSetError(f"{use}: not a function but {type(function).__name__}")
    if "split" not in inspect.signature(function).parameters:
        raise DataSetError(f"{use}: the function must take the split: `def {function.__name__}(split, ...):`")
    return function, file


def _check_options(use: str, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raise DataSetError for an option that the function does not take, or one that it needs."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    allowed = [name for name in parameters if name != "split"]
    for option in options:
        if option not in allowed:
            raise DataSetError(f"{use}: options.{option}: unknown{nearest_or_allowed(option, allowed)}")
    for name in allowed:
        if parameters[name].default is inspect.Parameter.empty and name not in options:
            raise DataSetError(f"{use}: options.{name} is missing; the function has no default for it")


def _png(image: Any) -> Any:
    """The bytes of a Pillow image as PNG; anything else as it is."""
    if not isinstance(image, Image.Image):
        return image
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()
