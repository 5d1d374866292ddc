"""`key=value` from the command line, laid over a recipe's plain values before they are validated."""

from __future__ import annotations

import copy
import dataclasses
import typing
from typing import Any

from configs import keys, yaml_io
from configs.errors import Problem
from configs.stage_paths import by_name, in_document, in_schema, shown
from configs.text import counted
from configs.yaml_io import COMMAND_LINE, KeyPath, YamlDocument, dotted


def apply_override(document: YamlDocument, override: str) -> None:
    """Set one key of the document; sections on the way are made, and what is wrong is added to its problems."""
    name, equals, text = override.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts):
        _refuse(document, name.strip(), f"{override!r}: write key=value, such as rl.steps=20")
        return
    given = tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)
    try:
        path = in_document(keys.written_out(in_schema(by_name(given, document.data), document.data)))
    except LookupError as error:
        _refuse(document, name.strip(), f"{name.strip()}: {error.args[0]}")
        return
    key = shown(in_schema(path, document.data), document.data)
    if not text.strip():
        _refuse(document, key, f"{override!r}: the value is missing; {key}=null switches a key off")
        return
    value = yaml_io.parse(text, COMMAND_LINE, path)
    if value.problems:
        document.problems.extend(value.problems)
        return
    if value.data is None and path[:1] == ("stages",) and len(path) == 2:
        _leave_out(document, path)
        return
    if path[:1] == ("stages",) and len(path) == 2 and isinstance(value.data, dict):
        value.data = _kind_and_name(document.data, path) | value.data
    try:
        _set(document, path, value)
    except LookupError as error:
        _refuse(document, key, f"{key}: {error.args[0]}")


def _set(document: YamlDocument, path: KeyPath, value: YamlDocument) -> None:
    """Put the value at the path; raises LookupError where the path cannot be followed."""
    holder: Any = document.data
    for end in range(1, len(path)):
        slot = _slot(holder, path[:end])
        if holder[slot] is None:
            holder[slot] = _fresh(path[:end], document.data)
            document.where[path[:end]] = COMMAND_LINE
        holder = holder[slot]
        if not isinstance(holder, dict | list):
            raise LookupError(f"{dotted(path[:end])} is {holder!r} in the recipe, and holds no keys")
    holder[_slot(holder, path)] = value.data
    for old in [place for place in document.where if place[: len(path)] == path]:
        del document.where[old]
    document.where.update(value.where)


def _leave_out(document: YamlDocument, path: KeyPath) -> None:
    """Take a stage out of the list; those after it move up, with the lines that they came from."""
    stages, place = document.data["stages"], int(path[1])
    if not 0 <= place < len(stages):
        _refuse(
            document, dotted(path), f"{dotted(path)}: the recipe has {counted(len(stages), 'stage')}, counted from 0"
        )
        return
    del stages[place]
    moved: dict[KeyPath, str] = {}
    for key, line in document.where.items():
        if key[:1] != ("stages",) or len(key) == 1 or int(key[1]) < place:
            moved[key] = line
        elif int(key[1]) > place:
            moved["stages", int(key[1]) - 1, *key[2:]] = line
    document.where = moved


def _kind_and_name(data: Any, path: KeyPath) -> dict[str, Any]:
    """What a stage that is replaced as a whole (`rl={steps: 4}`) keeps unless it is given."""
    stages, place = data.get("stages"), path[1]
    there = stages[place] if isinstance(stages, list) and isinstance(place, int) and place < len(stages) else None
    return {key: there[key] for key in ("kind", "name") if key in there} if isinstance(there, dict) else {}


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


def _fresh(path: KeyPath, data: Any) -> Any:
    """What a key that the recipe leaves out holds: a list's defaults, so that `data.train.0.limit=50` has an item.

    In a stage's `data` it is what the run's `data` holds.
    """
    if len(path) > 3 and path[0] == "stages" and path[2] == "data":
        whole = data.get("data") or {}
        if isinstance(whole, dict) and path[3] in whole and len(path) == 4:
            return copy.deepcopy(whole[path[3]])
    key = keys.find(in_schema(path, data))
    if key is None or not keys.is_list(key.annotation):
        return {}
    is_section = keys.section_of(typing.get_args(key.annotation)[0]) is not None
    return [dataclasses.asdict(item) if is_section else item for item in key.default]


def _refuse(document: YamlDocument, key: str, message: str) -> None:
    document.problems.append(Problem(key, COMMAND_LINE, message))
