"""Reward functions of others: `file.py:function`, or the name of an entry point in the group `thinkvl.rewards`.

A plug-in is `(response: str, reference: str, *, task: Task) -> float | Verdict | dict[str, float]`. What it does wrong
is found when it is loaded, where that is possible; what it does wrong when called becomes a verdict of kind `crash`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import math
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from rewards.types import Task, Verdict, VerdictKind

GROUP = "thinkvl.rewards"
RewardFunction = Callable[..., Any]

_SIGNATURE = "(response: str, reference: str, *, task: Task) -> float | Verdict | dict[str, float]"
_CORRECT_ABOVE = 0.5


class PluginError(ValueError):
    """A plug-in cannot be loaded; the message tells what was given, what is allowed and how to put it right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one call of a reward gave: its value, the parts it was made of, and the verdict on the call itself."""

    value: float
    verdict: Verdict
    parts: Mapping[str, float] = field(default_factory=dict)


def load_reward(spec: str, *, base: Path | None = None, known: Iterable[str] = ()) -> RewardFunction:
    """Find the reward function that `spec` names and check its signature.

    `base`: the folder that a relative file is looked for in first (the recipe's); then the working directory.
    `known`: further names that a mistyped `spec` may have meant. Raises PluginError.
    """
    path, colon, name = spec.rpartition(":")
    if colon and (path.endswith(".py") or "/" in path or "\\" in path):
        function = _from_file(spec, path, name, base)
    elif colon or spec.endswith(".py"):
        raise PluginError(
            f"reward {spec!r}: a file must be written as `file.py:function`, such as `brevity.py:brevity`"
        )
    else:
        function = _from_entry_point(spec, known)
    _check_signature(spec, function)
    return function


def call_reward(function: RewardFunction, response: str, reference: str, *, task: Task) -> Outcome:
    """Call a plug-in; an exception, NaN, an infinity or a wrong type becomes a verdict of kind `crash`."""
    start = time.perf_counter()
    try:
        result = function(response, reference, task=task)
    except Exception as error:  # whatever a stranger's code raises must not end the run
        return _crash(f"{type(error).__name__}: {error}", start)
    if isinstance(result, Verdict):
        if not _is_finite(result.score):
            return _crash(f"returned a verdict with score {result.score!r}: it must be finite", start)
        return Outcome(value=float(result.score), verdict=result)
    if isinstance(result, dict):
        return _from_parts(result, start)
    if not _is_finite(result):
        return _crash(f"returned {_show(result)}: must be a finite float, a Verdict or a dict of finite floats", start)
    return Outcome(value=float(result), verdict=_verdict(float(result), start))


def _from_parts(parts: dict[Any, Any], start: float) -> Outcome:
    for name, value in parts.items():
        if not isinstance(name, str) or not _is_finite(value):
            return _crash(f"returned a dict with {_show(name)}: {_show(value)}: names to finite floats only", start)
    if not parts:
        return _crash("returned an empty dict: give at least one part", start)
    total = float(sum(parts.values()))
    values = {name: float(value) for name, value in parts.items()}
    return Outcome(value=total, verdict=_verdict(total, start), parts=values)


def _verdict(value: float, start: float) -> Verdict:
    kind = VerdictKind.CORRECT if value > _CORRECT_ABOVE else VerdictKind.WRONG
    return Verdict(kind=kind, score=min(1.0, max(0.0, value)), rule="plugin", seconds=time.perf_counter() - start)


def _crash(detail: str, start: float) -> Outcome:
    seconds = time.perf_counter() - start
    verdict = Verdict(kind=VerdictKind.CRASH, score=0.0, rule="plugin", seconds=seconds, detail=detail[:500])
    return Outcome(value=0.0, verdict=verdict)


def _is_finite(value: object) -> bool:
    """True for finite ints, floats and bools, and for the scalars of numpy, which register as neither."""
    if isinstance(value, (str, bytes)) or value is None:
        return False
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return False


def _show(value: object) -> str:
    if isinstance(value, (str, int, float, bool, type(None))):
        return f"{value!r:.60}"
    return f"a {type(value).__name__}"


def _from_file(spec: str, path: str, name: str, base: Path | None) -> RewardFunction:
    given = Path(path).expanduser()
    folders = [Path()] if given.is_absolute() else [folder for folder in (base, Path.cwd()) if folder is not None]
    candidates = [(folder / given).resolve() for folder in folders]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        looked = " and ".join(dict.fromkeys(str(candidate) for candidate in candidates))
        raise PluginError(f"reward {spec!r}: no such file; looked for {looked}. Give a path relative to the recipe")
    if not name.isidentifier():
        raise PluginError(f"reward {spec!r}: {name!r} is no function name; write `{path}:function`")
    module = _load_module(spec, file)
    if name not in vars(module):
        functions = [n for n, v in vars(module).items() if inspect.isfunction(v) and not n.startswith("_")]
        near = _nearest(name, functions)
        raise PluginError(f"reward {spec!r}: {file} has no {name!r}{near}; it defines {', '.join(functions) or 'none'}")
    return vars(module)[name]


def _load_module(spec: str, file: Path) -> ModuleType:
    """Run `file` as a module of a name that no other can have, so that a user's `rewards.py` never shadows ours."""
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    unique = f"_thinkvl_plugin_{file.stem}_{digest}"
    found = importlib.util.spec_from_file_location(unique, file)
    if found is None or found.loader is None:
        raise PluginError(f"reward {spec!r}: {file} is no Python file; it must end in `.py`")
    module = importlib.util.module_from_spec(found)
    sys.modules[unique] = module  # dataclasses and pickle look modules up there
    try:
        found.loader.exec_module(module)
    except Exception as error:  # a stranger's import can raise anything
        del sys.modules[unique]
        raise PluginError(f"reward {spec!r}: importing {file} failed: {type(error).__name__}: {error}") from error
    return module


def _from_entry_point(spec: str, known: Iterable[str]) -> RewardFunction:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if spec not in points:
        names = sorted({*points, *known})
        raise PluginError(
            f"reward {spec!r}: unknown{_nearest(spec, names)}; allowed are {', '.join(names)}, `file.py:function`, "
            f"and the entry points of installed packages in the group {GROUP!r}"
        )
    return _load_entry_point(spec, points[spec])


def _load_entry_point(spec: str, point: EntryPoint) -> RewardFunction:
    try:
        return point.load()
    except Exception as error:  # a stranger's import can raise anything
        raise PluginError(f"reward {spec!r}: loading {point.value} failed: {type(error).__name__}: {error}") from error


def _check_signature(spec: str, function: object) -> None:
    if not callable(function):
        raise PluginError(f"reward {spec!r}: is a {type(function).__name__}, not a function; allowed is {_SIGNATURE}")
    if inspect.iscoroutinefunction(function):
        raise PluginError(f"reward {spec!r}: is `async`; write it as a plain function {_SIGNATURE}")
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a builtin that does not tell; the call will
    try:
        signature.bind("", "", task=None)
    except TypeError as error:
        raise PluginError(f"reward {spec!r}: takes {signature}, but {error}; allowed is {_SIGNATURE}") from error


def _nearest(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
