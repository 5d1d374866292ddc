"""YAML in and out: plain values with the line that each came from.

The scalars are YAML 1.2's, with `_` allowed between digits: `1e-4` is a number (PyYAML reads text), and `yes`, `no`,
`1:30` and `2024-01-01` are text (PyYAML reads booleans, sixties and dates).

Why not `ruamel.yaml`: it would replace the table of scalars and no more. It reads dates as dates and infinities as
numbers, and writes `yes` and `1:30` in a form that PyYAML does not read back as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from configs.errors import Problem

KeyPath = tuple[str | int, ...]

COMMAND_LINE = "command line"
MAX_VALUES = 5_000  # aliases may make billions out of a few lines
MAX_DEPTH = 32
MAX_INT = 2**63 - 1  # what torch, numpy and Parquet take

_TAG = "tag:yaml.org,2002:"
_SCALARS: tuple[tuple[str, str, str], ...] = (  # tag, pattern of the plain text, the characters that it can start with
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9][0-9_]*", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes with our scalars."""


class _Dumper(yaml.SafeDumper):
    """Writes what `_Loader` and plain PyYAML read back: text that either takes for something else is quoted."""

    def ignore_aliases(self, data: Any) -> bool:
        return True  # equal sections are written out, never as `&id001`


def _quoted_where_lines_break(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """PyYAML folds line breaks of text in single quotes; in double quotes it escapes them."""
    return dumper.represent_scalar(_TAG + "str", text, style='"' if len(f"{text}.".splitlines()) > 1 else None)


_Dumper.add_representer(str, _quoted_where_lines_break)
_Loader.yaml_implicit_resolvers = {}
for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _SCALARS:
        _starts = [*_first, ""] if _tag == "null" else list(_first)
        _class.add_implicit_resolver(_TAG + _tag, re.compile(f"^(?:{_pattern})$"), _starts)


@dataclass(slots=True)
class YamlDocument:
    """A recipe as read: plain dicts, lists and scalars, where each key stands, and what is wrong so far."""

    source: str  # the file's name as the user wrote it, or `command line`
    data: Any = None
    where: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    values: int = 0  # read so far, each alias counted

    def place(self, path: KeyPath) -> str:
        """Where the key stands, or the nearest section around it."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.where:
                return self.where[path[:end]]
        return self.source


def dotted(path: KeyPath) -> str:
    """`("data", "train", 0)` as `data.train.0`."""
    return ".".join(str(part) for part in path)


def flatten(data: Any, above: KeyPath = ()) -> dict[str, Any]:
    """Every scalar and every empty list or mapping by its dotted key: `{"data.train.0.use": "digit_sums", ...}`."""
    items = data.items() if isinstance(data, Mapping) else enumerate(data) if isinstance(data, list | tuple) else ()
    flat: dict[str, Any] = {}
    for key, value in items:
        flat |= flatten(value, (*above, key))
    return flat or {dotted(above): data}


def parse(text: str, source: str, at: KeyPath = ()) -> YamlDocument:
    """Read one YAML value that stands at the key `at`; mistakes are collected in `problems`."""
    document = YamlDocument(source)
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        line = None if mark is None else mark.line + 1
        document.problems.append(Problem(dotted(at), _place(source, line), f"{_named(at)}not valid YAML: {what}"))
        return document
    except RecursionError:
        document.problems.append(Problem(dotted(at), source, f"{_named(at)}nested deeper than {MAX_DEPTH} levels"))
        return document
    except yaml.YAMLError as error:  # a character that YAML forbids
        message = f"{_named(at)}not valid YAML: {' '.join(str(error).split())}"
        document.problems.append(Problem(dotted(at), source, message))
        return document
    if node is not None:
        document.where[at] = _place(source, node.start_mark.line + 1)
        document.data = _build(document, node, at, ())
        if document.values > MAX_VALUES:
            message = f"{_named(at)}holds more than {MAX_VALUES:,} values, each alias counted; no recipe needs so many"
            document.problems[:] = [Problem(dotted(at), source, message)]
    return document


def dump(data: Any) -> str:
    """Plain values as YAML that `parse` reads back equal, keys in the order given."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)


def _place(source: str, line: int | None) -> str:
    return source if source == COMMAND_LINE or line is None else f"{source}:{line}"


def _named(path: KeyPath) -> str:
    return f"{dotted(path)}: " if path else ""


def _build(document: YamlDocument, node: yaml.Node, path: KeyPath, above: tuple[yaml.Node, ...]) -> Any:
    """The value of a node; `above` are the nodes it lies in, so that an alias to one of them is noticed."""
    document.values += 1
    if document.values > MAX_VALUES:
        return None
    if len(above) > MAX_DEPTH:
        _refuse(document, node, path, f"nested deeper than {MAX_DEPTH} levels")
        return None
    if any(node is parent for parent in above):
        _refuse(document, node, path, "an alias that contains itself; write the value out")
        return None
    if isinstance(node, yaml.MappingNode):
        return _mapping(document, node, path, (*above, node))
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            document.where[(*path, index)] = _place(document.source, item.start_mark.line + 1)
            items.append(_build(document, item, (*path, index), (*above, node)))
        return items
    return _scalar(document, node, path)


def _mapping(
    document: YamlDocument, node: yaml.MappingNode, path: KeyPath, above: tuple[yaml.Node, ...]
) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or key_node.value == "<<":
            _refuse(document, key_node, path, "a key must be plain text; lists, mappings and `<<` cannot be keys")
            continue
        here = (*path, key_node.value)
        place = _place(document.source, key_node.start_mark.line + 1)
        if key_node.value in result:
            message = f"{dotted(here)} is given twice, first at {document.where[here]}; keep one"
            document.problems.append(Problem(dotted(here), place, message))
            continue
        document.where[here] = place
        result[key_node.value] = _build(document, value_node, here, above)
    return result


def _scalar(document: YamlDocument, node: yaml.Node, path: KeyPath) -> Any:
    text, tag = node.value, node.tag.removeprefix(_TAG)
    try:
        if tag == "str":
            return text
        if tag == "null":
            return None
        if tag == "bool" and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if tag == "int":
            if abs(whole := int(text)) <= MAX_INT:
                return whole
            _refuse(document, node, path, f"{dotted(path)} = {text[:60]}: must be below 2^63 in size (9.2e18)")
            return 0
        if tag == "float":
            number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
            if math.isfinite(number):
                return number
            _refuse(document, node, path, f"{dotted(path)} = {text}: must be a finite number")
            return 0.0
    except ValueError:
        pass  # `!!int ten`, or more digits than Python converts
    _refuse(document, node, path, f"{dotted(path)} = {text[:60]}: cannot be read as {tag}; leave the tag out")
    return text


def _refuse(document: YamlDocument, node: yaml.Node, path: KeyPath, message: str) -> None:
    document.problems.append(Problem(dotted(path), _place(document.source, node.start_mark.line + 1), message))
