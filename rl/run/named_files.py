"""The files that a recipe names: data files, code, and what that code imports from its own folder.

The fingerprint of a run and `thinkvl submit` both read this list, so that what decides a run is also what is sent.
"""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs.data import SourceConfig, recipe_verifiers
from configs.schema import RunConfig
from rewards.plugins.loading import plugin_file, split_adapter
from rollouts.tasks.dataset import FORMATS


def all_sources(config: RunConfig) -> tuple[SourceConfig, ...]:
    """Every source of a recipe: training, validation and held-out tasks, those of its stages too."""
    return tuple(source for data in config.all_data for source in (*data.train, *data.validation, *data.held_out))


def data_files(config: RunConfig) -> dict[str, SourceConfig]:
    """The data files, as the recipe writes them."""
    return {source.use: source for source in all_sources(config) if Path(source.use).suffix in FORMATS}


def code_files(config: RunConfig) -> list[str]:
    """The Python files of task functions, rewards, verifiers and engines, as the recipe writes them, each once."""
    specs = [*_rewards(config), *(stage.engine for stage in config.rl_stages)]
    specs += [source.use for source in all_sources(config)]
    return list(dict.fromkeys(file for spec in specs if (file := plugin_file(spec))))


def module_files(config: RunConfig) -> list[Path]:
    """The files of rewards and verifiers that the recipe names as `module:function`, where the module is found here."""
    modules = (split_adapter(spec)[1].rpartition(":")[0] for spec in _rewards(config) if not plugin_file(spec))
    return list(dict.fromkeys(file for module in modules if module and (file := _module_file(module))))


def option_values(config: RunConfig) -> list[str]:
    """Every text in the options of task files and engines; a text may be the name of a file."""
    options: list[Any] = [source.options for source in all_sources(config)]
    options += [stage.engine_options for stage in config.rl_stages]
    return list(dict.fromkeys(text for value in options for text in _texts(value)))


def imports_beside(file: Path) -> list[Path]:
    """The Python files that `file` imports from its own folder, and those that they import, without running any.

    A file with a syntax error has none; the error is reported when it is run.
    """
    folder, found, left = file.parent, dict[Path, None](), [file]
    while left:
        for module in _imported_modules(left.pop(), folder):
            for path in _files_of(folder, module):
                if path not in found and path != file:
                    found[path] = None
                    left.append(path)
    return sorted(found)


def texts_in_code(file: Path) -> list[str]:
    """Every text constant of a Python file; a text may be the name of a file that the code reads."""
    nodes = ast.walk(_tree(file))
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def _rewards(config: RunConfig) -> list[str]:
    """Rewards and verifiers, as the recipe writes them."""
    terms = [term for stage in config.rl_stages for term in stage.rewards]
    return [*recipe_verifiers(*config.all_data), *(name for term in terms for name in (term.use, *term.only_for))]


def _module_file(module: str) -> Path | None:
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded is None and all(part.isidentifier() for part in module.split(".")):
        try:
            found = importlib.util.find_spec(module)
        except Exception:  # importing its parent can raise anything; whoever loads the reward says so
            return None
        loaded = found.origin if found else None
    return Path(loaded) if loaded and loaded.endswith(".py") else None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(inner)


def _tree(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return ast.Module(body=[], type_ignores=[])


def _imported_modules(file: Path, folder: Path) -> Iterator[str]:
    """Dotted names that may be modules; relative imports are spelled out from `folder`."""
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = list(file.parent.relative_to(folder).parts)
            start = package[: len(package) + 1 - node.level] if node.level else []
            base = [*start, *(node.module.split(".") if node.module else [])]
            yield from (".".join([*base, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from (arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str))


def _files_of(folder: Path, module: str) -> Iterator[Path]:
    """The files that are run when a module is imported from `folder`: its packages', and its own."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        place = folder.joinpath(*parts[:end])
        yield from (file for file in (place.with_name(f"{place.name}.py"), place / "__init__.py") if file.is_file())
