"""Finds a reward function by `file.py:function`, `module:function` or entry point, in each case after an adapter.

`trl:mine.py:accuracy` is the function `accuracy` of `mine.py`, written for TRL. Mistakes are found here, where that is
possible; files are run under names that nothing else has, so that a user's `rewards.py` shadows nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from configs.text import did_you_mean
from rewards.plugins.adapters import ADAPTERS
from rewards.plugins.interface import Plugin, PluginError, native

GROUP = "thinkvl.rewards"
Kind = Literal["function", "class"]


def load_plugin(spec: str, *, base: Path | None = None, known: Iterable[str] = ()) -> Plugin:
    """Find the reward function that `spec` names and check its signature. Runs its code.

    `base`: the folder that a relative file is looked for in, by default the working folder, which is looked in next.
    `known`: further names that a mistyped `spec` may have meant. Raises PluginError.
    """
    adapter, place = split_adapter(spec)
    path, colon, name = place.rpartition(":")
    if colon and _is_file(path):
        found, _ = load_function(f"reward {spec!r}", place, base=base)
    elif colon and path and all(part.isidentifier() for part in path.split(".")):
        found = _from_module(spec, path, name)
    elif colon or place.endswith(".py"):
        raise PluginError(
            f"reward {spec!r}: a file must be written as `file.py:function`, such as `brevity.py:brevity`"
        )
    else:
        found = _from_entry_point(spec, place, known)
    return native(spec, found) if adapter is None else ADAPTERS[adapter](spec, found)


def split_adapter(spec: str) -> tuple[str | None, str]:
    """The adapter's name, or None, and the rest of a reward's name."""
    head, colon, rest = spec.partition(":")
    return (head, rest) if colon and head in ADAPTERS and rest else (None, spec)


def plugin_file(spec: str) -> str | None:
    """The file that `spec` names, as it is written there; None for a module, an entry point or a built-in."""
    path, colon, _ = split_adapter(spec)[1].rpartition(":")
    return path if colon and _is_file(path) else None


def _is_file(path: str) -> bool:
    return path.endswith(".py") or "/" in path or "\\" in path


def load_function(label: str, place: str, *, base: Path | None, kind: Kind = "function") -> tuple[Any, Path]:
    """The function, or class, that `file.py:name` names, and its file; `label` starts the messages. Runs the file.

    A relative file is looked for in `base`, then in the working directory. Raises PluginError.
    """
    path, _, name = place.rpartition(":")
    given = Path(path).expanduser()
    folders = [Path()] if given.is_absolute() else [folder for folder in (base, Path.cwd()) if folder is not None]
    candidates = [(folder / given).resolve() for folder in folders]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        looked = " and ".join(dict.fromkeys(str(candidate) for candidate in candidates))
        raise PluginError(f"{label}: no such file; looked for {looked}")
    if not name.isidentifier():
        raise PluginError(f"{label}: {name!r} is no {kind} name; write `{path}:{kind}`")
    return _member(label, run_source(label, file, file.read_bytes()), name, str(file), kind), file


def run_source(label: str, file: Path, source: bytes) -> ModuleType:
    """Run the `source` of `file` as a module of a name that no other can have, with its folder last on the import path.

    The file itself need not exist on this machine. Raises PluginError.
    """
    digest = hashlib.sha256(str(file).encode()).hexdigest()[:12]
    unique = f"_thinkvl_plugin_{file.stem}_{digest}"
    found = importlib.util.spec_from_file_location(unique, file)
    if found is None:
        raise PluginError(f"{label}: {file} is no Python file; it must end in `.py`")
    module = importlib.util.module_from_spec(found)
    sys.modules[unique] = module  # dataclasses and pickle look modules up there
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # last: its neighbours can be imported and shadow nothing
    try:
        exec(compile(source, str(file), "exec", dont_inherit=True), vars(module))
    except BaseException as error:  # a stranger's import can raise anything
        del sys.modules[unique]
        where = f"{file}{_line_in(file, error)}"
        raise PluginError(f"{label}: importing {where} failed: {type(error).__name__}: {error}") from error
    return module


def _line_in(file: Path, error: BaseException) -> str:
    """`:LINE` of the last line of `file` that ran before `error`; empty where none did."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    if isinstance(error, SyntaxError) and error.filename == str(file):
        lines.append(error.lineno)
    return f":{lines[-1]}" if lines and lines[-1] else ""


def _from_module(spec: str, path: str, name: str) -> object:
    try:
        module = importlib.import_module(path)
    except BaseException as error:
        raise PluginError(f"reward {spec!r}: importing {path} failed: {type(error).__name__}: {error}") from error
    try:
        return getattr(module, name)  # a module may load its members when they are first used
    except AttributeError:
        return _member(f"reward {spec!r}", module, name, path, "function")


def _member(label: str, module: ModuleType, name: str, where: str, kind: Kind) -> object:
    if name in vars(module):
        return vars(module)[name]
    public = {n: v for n, v in vars(module).items() if not n.startswith("_")}
    if kind == "class":
        names = [n for n, v in public.items() if inspect.isclass(v) and v.__module__ == module.__name__]
    else:  # a module that loads its functions when first used has none yet
        names = [n for n, v in public.items() if inspect.isfunction(v)] or [n for n in dir(module) if n[0] != "_"]
    near = did_you_mean(name, names)
    raise PluginError(f"{label}: {where} has no {name!r}{near}; it defines {', '.join(names) or 'none'}")


def _from_entry_point(spec: str, name: str, known: Iterable[str]) -> object:
    points = {point.name: point for point in entry_points(group=GROUP)}
    if name not in points:
        names = sorted({*points, *known})
        raise PluginError(
            f"reward {spec!r}: unknown{did_you_mean(name, names)}; allowed are {', '.join(names)}, `file.py:function`, "
            f"`module:function`, the entry points of installed packages in the group {GROUP!r}, and each of these "
            f"after {', '.join(f'`{adapter}:`' for adapter in ADAPTERS)}"
        )
    return _load_entry_point(spec, points[name])


def _load_entry_point(spec: str, point: EntryPoint) -> object:
    try:
        return point.load()
    except BaseException as error:  # a stranger's import can raise anything
        raise PluginError(f"reward {spec!r}: loading {point.value} failed: {type(error).__name__}: {error}") from error
