"""JSON that others wrote: what Python's reader lets pass but JSON does not allow is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeVar

from configs.errors import UserError
from configs.files import read_bytes
from configs.text import one_line

T = TypeVar("T")


def parse_json(text: str | bytes) -> Any:
    """The value in a JSON text.

    NaN is read: pandas writes it where a value is missing. Raises ValueError for text that is no JSON (bytes that are
    no UTF-8 too), for Infinity, for a key that stands twice in one object, and for nesting that is too deep.
    """
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path, kind: type[T]) -> T:
    """The value in a JSON file that a run keeps, as a `kind`: a dataclass, or dicts and lists of plain values.

    Raises FileNotFoundError where there is none, and UserError for a file that holds anything else.
    """
    from pydantic import TypeAdapter  # slow to import

    try:
        return TypeAdapter(kind).validate_python(parse_json(read_bytes(path)))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: is damaged or no file of a run ({one_line(error)}); put the file back as the run wrote it, or "
            "delete it"
        ) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _constant(name: str) -> float:
    if name != "NaN":
        raise ValueError(f"{name} is not a number of JSON")
    return math.nan
