"""`key=value` from the command line, laid over a recipe's plain values before they are validated."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

from configs import keys, yaml_io
from configs.errors import Problem
from configs.yaml_io import COMMAND_LINE, Document, KeyPath, dotted


def apply_override(document: Document, override: str) -> None:
    """Set one key of the document; sections on the way are made, and what is wrong is added to its problems."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        _refuse(document, name.strip(), f"{override!r}: write key=value, such as rl.steps=20")
        return
    path = keys.written_out(tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts))
    if not text.strip():
        _refuse(document, dotted(path), f"{override!r}: the value is missing; {dotted(path)}=null switches a key off")
        return
    value = yaml_io.parse(text, COMMAND_LINE, path)
    if value.problems:
        document.problems.extend(value.problems)
        return
    try:
        _set(document, path, value)
    except LookupError as error:
        _refuse(document, dotted(path), f"{dotted(path)}: {error.args[0]}")


def _set(document: Document, path: KeyPath, value: Document) -> None:
    """Put the value at the path; raises LookupError where the path cannot be followed."""
    holder: Any = document.data
    for end in range(1, len(path)):
        slot = _slot(holder, path[:end])
        if holder[slot] is None:
            holder[slot] = _fresh(path[:end])
            document.where[path[:end]] = COMMAND_LINE
        holder = holder[slot]
        if not isinstance(holder, dict | list):
            raise LookupError(f"{dotted(path[:end])} is {holder!r} in the recipe, and holds no keys")
    holder[_slot(holder, path)] = value.data
    for old in [place for place in document.where if place[: len(path)] == path]:
        del document.where[old]
    document.where.update(value.where)


def _slot(holder: Any, path: KeyPath) -> Any:
    """The key or place in the holder that the last part of the path means, made (as `None`) where it is new."""
    last = path[-1]
    if isinstance(holder, dict):
        holder.setdefault(str(last), None)
        return str(last)
    if not isinstance(last, int) or last > len(holder):
        there = f"{dotted(path[:-1])} is a list of {len(holder)}"
        raise LookupError(f"{there}; use 0 to {len(holder)}, where {len(holder)} adds one")
    if last == len(holder):
        holder.append(None)
    return last


def _fresh(path: KeyPath) -> Any:
    """What a key that the recipe leaves out holds: a list's defaults, so that `data.train.0.limit=50` has an item."""
    key = keys.find(path)
    if key is None or not keys.is_list(key.annotation):
        return {}
    is_section = keys.section_of(typing.get_args(key.annotation)[0]) is not None
    return [dataclasses.asdict(item) if is_section else item for item in key.default]


def _refuse(document: Document, key: str, message: str) -> None:
    document.problems.append(Problem(key, COMMAND_LINE, message))
