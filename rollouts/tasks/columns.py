"""Which columns of a data set hold our fields, and which look like images that nobody uses."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from configs.text import nearest_or_allowed
from rollouts.tasks.document_rows import DOCUMENT_FIELDS
from rollouts.tasks.image_cells import image_items
from rollouts.tasks.rows import FIELDS, REQUIRED, BadRow

_NUMBERED = re.compile(r"image_(\d+)")  # MMMU's image_1 to image_7
_IMAGE_FILE = re.compile(r"data:image/.*|.*\.(?:png|jpe?g|gif|webp|bmp|tiff?)", re.IGNORECASE | re.DOTALL)

_LIKELY = {  # common names in the data sets of others
    "question": ("problem", "query", "prompt", "instruction", "q"),
    "answer": ("label", "target", "ground_truth", "reference", "solution", "gold", "answers", "a"),
    "text": ("caption", "content", "document"),
}


def holds_documents(columns: Mapping[str, str]) -> bool:
    """Whether a recipe's `columns` describe a file of documents: they say which column holds the text."""
    return "text" in columns


class ColumnError(ValueError):
    """Columns that do not fit the recipe's `columns`; the message says what to change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The column of each field, and the groups of columns of which a row's images come from one.

    Without a mapping, images come from `images`, from `image`, or from the numbered `image_1`, `image_2`, ...
    """

    fields: Mapping[str, str]  # without images
    images: Sequence[Sequence[str]]

    def used(self) -> list[str]:
        """Every column that is read."""
        return sorted({*self.fields.values(), *(name for group in self.images for name in group)})

    def cells(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The row by our fields. Raises BadRow where two groups of columns hold images."""
        found = [(group, images) for group in self.images if (images := _images(row, group))]
        if len(found) > 1:
            raise BadRow("images in more than one column", f"{found[0][0][0]} and {found[1][0][0]}")
        cells = {field: row.get(column) for field, column in self.fields.items()}
        return cells | {"images": found[0][1] if found else None}


def map_columns(use: str, names: Sequence[str], columns: Mapping[str, str]) -> Columns:
    """The columns of each field, by the recipe's `columns` or by name; `columns: {solution: ''}` leaves one out.

    A column that `columns` gives to one field serves no other. Raises ColumnError.
    """
    _check_columns(use, names, columns)
    return known_columns(names, columns)


def _check_columns(use: str, names: Sequence[str], columns: Mapping[str, str]) -> None:
    """Raise ColumnError where a column is missing that the recipe names, or that every data set needs."""
    if not names:
        raise ColumnError(f"{use}: no line holds a JSON object: the data set is empty, or it is not JSON Lines")
    fields = _fields(columns)
    for field, column in columns.items():
        if field not in fields:
            whose = "the fields of documents" if holds_documents(columns) else "the fields"
            raise ColumnError(f"{use}: columns.{field}: unknown field; {whose} are {', '.join(fields)}")
        if column not in names and column:
            near = nearest_or_allowed(column, names).replace("allowed are", "there are")
            raise ColumnError(f"{use}: columns.{field} = {column!r}: no such column{near}")
    mapping = _by_field(columns)
    for field in ("text",) if holds_documents(columns) else REQUIRED:
        if mapping[field] not in names:
            texts = " A file of documents, without questions, needs `columns: {text: text}`." if "text" in names else ""
            raise ColumnError(
                f"{use}: there is no column {field!r}; the columns are {', '.join(names)}. "
                f"Say which one holds the {field}: `columns: {{{field}: {_likely(field, names)}}}`.{texts}"
            )


def _likely(field: str, names: Sequence[str]) -> str:
    """The column that most likely holds the field by its name; `COLUMN` where none does."""
    return next((name for name in names if name.lower() in _LIKELY.get(field, ())), "COLUMN")


def known_columns(names: Sequence[str], columns: Mapping[str, str]) -> Columns:
    """The columns of each field as far as `names` has them; `map_columns` without its errors."""
    mapping = _by_field(columns)
    numbered = sorted((int(match[1]), name) for name in names if (match := _NUMBERED.fullmatch(name)))
    groups = [["images"], ["image"], [name for _, name in numbered]]
    if "images" in columns:
        groups = [[columns["images"]]]
    groups = [[name for name in group if name in names] for group in groups]
    return Columns(
        fields={field: column for field, column in mapping.items() if column in names},
        images=[group for group in groups if group],
    )


def _by_field(columns: Mapping[str, str]) -> dict[str, str]:
    """The column of each field but the images, whether the data set has it or not."""
    given = set(columns.values())
    fields = [field for field in _fields(columns) if field != "images"]
    return {field: columns.get(field, "" if field in given else field) for field in fields}


def _fields(columns: Mapping[str, str]) -> Sequence[str]:
    """The fields of a row."""
    return DOCUMENT_FIELDS if holds_documents(columns) else FIELDS


def looks_like_image(value: Any) -> bool:
    """Whether a cell holds an image, or a list of them: bytes, a data URI, the name of an image file."""
    if isinstance(value, list | tuple):
        return bool(value) and looks_like_image(value[0])
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes) or looks_like_image(value.get("path"))
    if isinstance(value, bytes):
        return value.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF"))
    return isinstance(value, str) and len(value) < 10_000_000 and bool(_IMAGE_FILE.fullmatch(value))


def unused_images(rows: Iterable[Mapping[str, Any]], used: Sequence[str]) -> list[str]:
    """The columns that hold images in one of the rows and are not used."""
    found = {name for row in rows for name, value in row.items() if name not in used and looks_like_image(value)}
    return sorted(found)


def plain_rows(batch: pa.Table) -> list[dict[str, Any]]:
    """The rows of an Arrow table; a float32 becomes the shortest number that stands for it: 0.1, not 0.10000000149."""
    rows = batch.to_pylist()
    for field in batch.schema:
        kind = field.type
        while pa.types.is_list(kind) or pa.types.is_large_list(kind):
            kind = kind.value_type
        if pa.types.is_float32(kind) or pa.types.is_float16(kind):
            shortest = np.float32 if pa.types.is_float32(kind) else np.float16
            for row in rows:
                row[field.name] = _shortest(row[field.name], shortest)
    return rows


def _shortest(value: Any, kind: Callable[[float], Any]) -> Any:
    """A number, or a list of them, as the shortest that stands for each; null stays."""
    if isinstance(value, list):
        return [_shortest(item, kind) for item in value]
    return None if value is None else float(str(kind(value)))


def _images(row: Mapping[str, Any], group: Sequence[str]) -> list[Any]:
    """The images in a group of columns; null, `[]` and an empty text are none."""
    return [image for name in group for image in image_items(row.get(name))]
