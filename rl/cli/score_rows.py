"""Parses the lines of a JSONL file of responses into tasks and responses, or the reason why a line is unusable."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.files import MAX_IMAGE_BYTES, open_regular, read_bytes
from configs.json_io import parse_json
from configs.text import shorten, with_article
from rewards.types import Task

FIELDS = ("response", "responses", "answer", "verifier", "choices", "question", "source", "id", "images")
_DEFAULT_SOURCE = "all"
_LONGEST = 50_000_000  # bytes of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRow:
    """One response of a line."""

    line: int  # from 1
    sample: int  # which response of the line, from 0
    response: str
    task: Task


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that cannot be used, and why."""

    line: int
    reason: str


def read_rows(file: Path, columns: Mapping[str, str], verifier: str) -> Iterator[ResponseRow | BadLine]:
    """The rows of `file`; `columns` maps our fields to the file's, `verifier` is for rows that name none.

    Blank lines are left out. `images` are paths relative to the file.
    """
    with open_regular(file) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield from _rows(line, number, file.parent, columns, verifier)
            except _Bad as error:
                yield BadLine(line=number, reason=str(error))


class _Bad(ValueError):
    pass


def _rows(line: bytes, number: int, folder: Path, columns: Mapping[str, str], verifier: str) -> list[ResponseRow]:
    cell = {field: value for field, value in _fields(line, columns).items() if value is not None}
    responses = _responses(cell)
    choices = cell.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str | int | float) for choice in choices):
        raise _Bad("choices must be a list of texts")
    task = Task(
        id=str(cell.get("id", number)),
        source=shorten(str(cell.get("source", _DEFAULT_SOURCE)), 120),
        question=_text(cell.get("question", ""), "question"),
        answer=_text(cell.get("answer"), "answer"),
        images=_images(cell.get("images", []), folder),
        verifier=_text(cell.get("verifier") or ("choice" if choices else verifier), "verifier"),
        choices=tuple(str(choice) for choice in choices),
    )
    return [ResponseRow(line=number, sample=at, response=response, task=task) for at, response in enumerate(responses)]


def _fields(line: bytes, columns: Mapping[str, str]) -> dict[str, Any]:
    if len(line) > _LONGEST:
        raise _Bad(f"longer than {_LONGEST:,} bytes")
    try:
        value = parse_json(line)
    except UnicodeDecodeError as error:
        raise _Bad("is not UTF-8") from error
    except ValueError as error:
        raise _Bad(f"is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise _Bad(f"must be a JSON object, and is {with_article(type(value).__name__)}")
    return {field: value.get(columns.get(field, field)) for field in FIELDS}


def _responses(cell: Mapping[str, Any]) -> list[str]:
    if ("response" in cell) == ("responses" in cell):
        raise _Bad("needs `response` (a text) or `responses` (a list of texts), and only one of them")
    given = cell["responses"] if "responses" in cell else [cell["response"]]
    if not isinstance(given, list) or not given or not all(isinstance(text, str) for text in given):
        raise _Bad("`response` must be a text, `responses` a list of texts")
    return given


def _text(value: Any, field: str) -> str:
    """A value as text: a list or an object (boxes, JSON answers) becomes JSON."""
    if isinstance(value, str):
        text = value
    elif value is None or isinstance(value, bool):
        raise _Bad(f"{field} is missing" if value is None else f"{field} must be a text, and is {value}")
    else:
        text = json.dumps(value, ensure_ascii=False)
    if field == "answer" and not text.strip():
        raise _Bad("answer is empty")
    return text


def _images(value: Any, folder: Path) -> tuple[bytes, ...]:
    paths = value if isinstance(value, list) else [value]
    images = []
    for path in paths:
        if not isinstance(path, str):
            raise _Bad("images must be paths")
        try:
            images.append(read_bytes(folder / path, limit=MAX_IMAGE_BYTES))
        except (OSError, ValueError) as error:
            raise _Bad(f"image {path[:80]!r} cannot be read") from error
    return tuple(images)
