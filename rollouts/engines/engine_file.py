"""An engine of the user, `file.py:Class`: found, checked against the protocol, and sent to the workers as source.

The class is called as `Class(spec, **options)`, with an `EngineSpec` and the recipe's `rl.engine_options`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs.text import nearest_or_allowed
from rewards.plugins.interface import PluginError
from rewards.plugins.loading import load_function, run_source
from rollouts.engines.protocol import Engine, EngineError

# What the driver passes to each method: positional arguments, keyword arguments.
_CALLS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "add": (("index", "request", "sampling"), ()),
    "step": ((), ()),
    "cancel": (("indices",), ()),
    "start_load": (("shapes",), ()),
    "load_weights": (("weights",), ()),
    "finish_load": (("version",), ()),
}
_MEMBERS = (*_CALLS, "version")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFile:
    """A checked engine of the user. It carries its source: a worker on another node may not see the file."""

    use: str  # as the recipe names it
    file: Path
    source: bytes
    options: Mapping[str, Any]
    fixed_weights: bool

    def load(self) -> Callable[..., Engine]:
        """The class, in this process. Raises PluginError where the file cannot be run here."""
        module = run_source(f"rl.engine {self.use!r}", self.file, self.source)
        return vars(module)[self.use.rpartition(":")[2]]


def find_engine(use: str, options: Mapping[str, Any], *, base: Path) -> EngineFile:
    """The engine that `use` (`file.py:Class`) names, looked for in `base`. Runs the file.

    Raises EngineError with the file, the line and everything that the class lacks.
    """
    try:
        found, file = load_function(f"rl.engine {use!r}", use, base=base, kind="class")
    except PluginError as error:
        raise EngineError(str(error)) from error
    if not inspect.isclass(found):
        raise EngineError(f"rl.engine {use!r}: {file} defines {found!r:.80}, which is no class")
    if problems := [*_protocol_problems(found), *_option_problems(found, options)]:
        where = f"{file}:{_line(found)}: class {found.__name__}"
        raise EngineError("\n  ".join([f"rl.engine {use!r}: {where} cannot be used:", *problems]))
    assert issubclass(found, Engine)
    return EngineFile(
        use=use, file=file, source=file.read_bytes(), options=dict(options), fixed_weights=found.fixed_weights
    )


def _protocol_problems(cls: type) -> Iterator[str]:
    """What the class lacks of the protocol."""
    if not issubclass(cls, Engine):
        yield "it must derive from rollouts.engines.protocol.Engine"
    missing = [name for name in _MEMBERS if not hasattr(cls, name) or name in getattr(cls, "__abstractmethods__", ())]
    if missing:
        yield f"it lacks {', '.join(missing)}; an engine has {', '.join(_MEMBERS)}"
    for name, (positional, keywords) in _CALLS.items():
        member = getattr(cls, name, None)
        if name in missing:
            continue
        if not callable(member):
            yield f"{name} is no method"
            continue
        try:
            inspect.signature(member).bind(None, *positional, **dict.fromkeys(keywords))
        except TypeError as error:
            wanted = ", ".join([*positional, *(f"{key}=..." for key in keywords)])
            yield f"line {_line(member)}: {name}{inspect.signature(member)}: {error}; it is called as {name}({wanted})"


def _option_problems(cls: type, options: Mapping[str, Any]) -> Iterator[str]:
    """What does not fit between the class's parameters and `rl.engine_options`."""
    parameters = list(inspect.signature(cls).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    ):
        yield f"it takes {inspect.signature(cls)}; its first parameter must be the EngineSpec"
        return
    variadic = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    allowed = [p.name for p in parameters[1:] if p.kind not in variadic]
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    for name in options:
        if name not in allowed and not takes_any:
            yield f"rl.engine_options.{name}: unknown{nearest_or_allowed(name, allowed)}"
    for p in parameters[1:]:
        if p.default is p.empty and p.kind not in variadic and p.name not in options:
            yield f"rl.engine_options.{p.name} is missing; the class has no default for it"


def _line(found: Any) -> str:
    """The line where a class or a function starts; `?` where the source does not say."""
    try:
        return str(inspect.getsourcelines(found)[1])
    except (OSError, TypeError):
        return "?"
