"""Names with options, as a recipe or a row of data writes them: `numeric(rel=0.01)`. Read strictly, never evaluated."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from configs.text import did_you_mean
from rewards.plugins.interface import PluginError

Option = bool | int | float | str
Made = TypeVar("Made")

_SPEC = re.compile(r"\s*([A-Za-z_]\w{0,40})\s*(?:\((.{0,400})\)\s*)?", re.DOTALL)
_OPTION = re.compile(r"\s*([A-Za-z_]\w{0,40})\s*=\s*([^\s=,()]{1,100})\s*")
_INT = re.compile(r"[-+]?\d{1,15}")
_FLOAT = re.compile(r"[-+]?(?:\d{1,15}(?:\.\d{0,15})?|\.\d{1,15})(?:[eE][-+]?\d{1,2})?")
_KINDS: Mapping[type, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A name and its options, such as `numeric` and `{"rel": 0.01}`."""

    name: str
    options: Mapping[str, Option]


def base_name(spec: str) -> str:
    """`numeric` of `numeric(rel=0.01)`; what has no options is its own base."""
    return spec.partition("(")[0].strip()


@lru_cache(maxsize=1024)
def parse_spec(spec: str) -> Spec:
    """Read `name` or `name(option=value, ...)`; values are numbers, `true`, `false` or words. Raises PluginError."""
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise PluginError(f"{spec[:120]!r}: must be a name, or a name with options such as `numeric(rel=0.01)`")
    options: dict[str, Option] = {}
    for piece in (match[2] or "").split(",") if (match[2] or "").strip() else ():
        option = _OPTION.fullmatch(piece)
        if option is None:
            raise PluginError(f"{spec[:120]!r}: {piece.strip()!r} is no option; write `name=value`, such as `rel=0.01`")
        if option[1] in options:
            raise PluginError(f"{spec[:120]!r}: the option {option[1]!r} is given twice")
        options[option[1]] = _value(option[2])
    return Spec(name=match[1], options=options)


def make(table: Mapping[str, Callable[..., Made]], spec: str, *args: Any) -> Made:
    """What the entry of `table` that `spec` names makes of `args` and the options, its keyword-only arguments.

    Raises PluginError for unknown names and options, for values of a wrong type, and where the maker raises ValueError.
    """
    parsed = parse_spec(spec)
    if parsed.name not in table:
        raise PluginError(
            f"{spec!r}: unknown{did_you_mean(parsed.name, table)}; allowed are {', '.join(sorted(table))}"
        )
    maker = table[parsed.name]
    allowed = {
        name: parameter
        for name, parameter in inspect.signature(maker, eval_str=True).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name, value in parsed.options.items():
        if name not in allowed:
            known = f"allowed are {', '.join(allowed)}" if allowed else f"{parsed.name} takes none"
            raise PluginError(f"{spec!r}: {name}: no such option{did_you_mean(name, allowed)}; {known}")
        kind = allowed[name].annotation
        if not _fits(value, kind):
            raise PluginError(f"{spec!r}: {name} = {value!r}: must be {_KINDS[kind]}")
    needed = [name for name, parameter in allowed.items() if parameter.default is inspect.Parameter.empty]
    missing = [name for name in needed if name not in parsed.options]
    if missing:
        raise PluginError(f"{spec!r}: needs {', '.join(f'{name}=...' for name in missing)}")
    try:
        return maker(*args, **parsed.options)
    except ValueError as error:
        raise PluginError(f"{spec!r}: {error}") from error


def _value(text: str) -> Option:
    if text in ("true", "false"):
        return text == "true"
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _fits(value: Option, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value) is kind
