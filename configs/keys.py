"""The keys that a recipe may have, read from the schema: their types, their defaults, and the nearest to a typo."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

from configs.schema import RunConfig
from configs.stage import StageConfig
from configs.stage_kinds import STAGE_KINDS
from configs.yaml_io import KeyPath

# A key path in which `N` stands for any place in a list, or any section's name: ("data", "train", "N", "use"). Below a
# stage comes its kind: ("stages", "N", "rl", "steps").
Pattern = tuple[str, ...]

REQUIRED = dataclasses.MISSING


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of the schema. Example: `Key(("stages", "N", "rl", "steps"), int, REQUIRED)`."""

    pattern: Pattern
    annotation: Any
    default: Any  # REQUIRED where the recipe must give it


@cache
def schema_keys() -> dict[Pattern, Key]:
    """Every key of the schema, sections included, in the schema's order."""
    return {key.pattern: key for key in _walk(RunConfig, ())}


def find(path: KeyPath) -> Key | None:
    """The schema's key at a path of a recipe; `None` where there is no such key."""
    return schema_keys().get(_pattern(path))


def is_free(path: KeyPath) -> bool:
    """Whether the path lies inside a mapping whose keys are the user's own, such as `data.train.0.columns`."""
    above = (find(path[:end]) for end in range(1, len(path)))
    return any(key is not None and typing.get_origin(key.annotation) is dict for key in above)


def section_keys(path: KeyPath) -> list[str]:
    """The names that may stand in a section, in the schema's order."""
    key = find(path)
    section = RunConfig if not path else section_of(key.annotation) if key else None
    return [field.name for field in dataclasses.fields(section)] if section else []


def section_of(annotation: Any) -> Any:
    """The dataclass of a section, `X` or `X | None`; else `None`."""
    for candidate in (annotation, *typing.get_args(annotation)):
        if dataclasses.is_dataclass(candidate) and typing.get_origin(annotation) not in (tuple, dict):
            return candidate
    return None


def is_list(annotation: Any) -> bool:
    """Whether the key holds a list of sections."""
    return typing.get_origin(annotation) is tuple


def nearest(path: KeyPath) -> list[KeyPath]:
    """The valid keys that an unknown one most likely means: those that are equally near, often one.

    Names are compared, not whole paths; a name in the same section or under it needs less likeness than one elsewhere.
    """
    section, name = _pattern(path[:-1]), str(path[-1])
    scores: dict[Pattern, float] = {}
    for pattern in schema_keys():
        if pattern[3:4] == ("data",) and section[3:4] != ("data",):
            continue  # the run's own `data` has the same keys
        likeness = difflib.SequenceMatcher(None, name, pattern[-1]).ratio()
        beside, below = pattern[:-1] == section, pattern[: len(section)] == section
        if likeness >= (0.6 if beside else 0.75):
            scores[pattern] = likeness + 0.1 * beside + 0.05 * below
    best = [pattern for pattern, score in scores.items() if score == max(scores.values())]
    return [
        (*path[:-1], *pattern[len(section) :]) if pattern[: len(section)] == section else pattern for pattern in best
    ]


def written_out(path: KeyPath) -> KeyPath:
    """A short key of the command line in full: `learning_rate` of a stage is its `optimizer.learning_rate`.

    It is short when exactly one key under the section ends so; every other path is returned as it is.
    """
    if find(path) is not None or is_free(path):
        return path
    valid = max(end for end in range(len(path)) if end == 0 or find(path[:end]))
    section, tail = _pattern(path[:valid]), path[valid:]
    below = [key[valid:] for key in schema_keys() if key[:valid] == section and "N" not in key[valid:]]
    found = [key for key in below if key[1:][-len(tail) :] == tail]
    return (*path[:valid], *found[0]) if len(found) == 1 else path


def describe(annotation: Any) -> str:
    """What a key takes, in words: `a whole number, or null`."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Any: "any value"}
    if annotation in words:
        return words[annotation]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin in (types.UnionType, typing.Union):  # `Literal[...] | None` is the latter
        return ", or ".join("null" if part is types.NoneType else describe(part) for part in arguments)
    if origin is tuple:
        return "a list, each item " + describe(arguments[0])
    if origin is dict:
        return "a mapping of names to " + describe(arguments[1])
    if annotation is StageConfig:
        return f"a stage: `kind` (one of {', '.join(STAGE_KINDS)}) and the keys of its kind"
    names = ", ".join(field.name for field in dataclasses.fields(annotation))
    return f"a section with the keys {names}"


def _pattern(path: KeyPath) -> Pattern:
    pattern: Pattern = ()
    for part in path:
        above = schema_keys().get(pattern)
        named = above is not None and typing.get_origin(above.annotation) is dict and (*pattern, "N") in schema_keys()
        pattern += ("N" if isinstance(part, int) or named else part,)
    return pattern


def _walk(section: Any, above: Pattern) -> Iterator[Key]:
    hints = typing.get_type_hints(section)
    for field in dataclasses.fields(section):
        made = field.default_factory is not dataclasses.MISSING
        default = field.default_factory() if made else field.default  # type: ignore[misc]
        here, annotation = (*above, field.name), hints[field.name]
        yield Key(here, annotation, default)
        inner = section_of(annotation)
        if inner is not None:
            yield from _walk(inner, here)
        elif is_list(annotation):
            item = typing.get_args(annotation)[0]
            yield Key((*here, "N"), item, REQUIRED)
            if item is StageConfig:
                yield from _walk_stages((*here, "N"))
            elif dataclasses.is_dataclass(item):
                yield from _walk(item, (*here, "N"))
        elif typing.get_origin(annotation) is dict and dataclasses.is_dataclass(typing.get_args(annotation)[1]):
            yield Key((*here, "N"), typing.get_args(annotation)[1], REQUIRED)
            yield from _walk(typing.get_args(annotation)[1], (*here, "N"))


def _walk_stages(above: Pattern) -> Iterator[Key]:
    """The keys that every stage has, and those of each kind."""
    yield from (key for key in _walk(StageConfig, above) if len(key.pattern) == len(above) + 1)
    for name, kind in STAGE_KINDS.items():
        yield Key((*above, name), kind.config, REQUIRED)
        yield from _walk(kind.config, (*above, name))
