"""Reads a recipe: YAML, then `key=value` overrides, then every type, key and rule of the schema at once.

Only the driver loads recipes; engines and the learner take the plain dataclasses of `configs.schema`.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from configs import keys, yaml_io
from configs.errors import ConfigError, Problem
from configs.files import read_bytes
from configs.overrides import apply_override
from configs.schema import RunConfig
from configs.stage_kinds import STAGE_KINDS
from configs.stage_paths import by_name, in_document, in_schema, shown, suggestions
from configs.text import nearest_names, shorten
from configs.yaml_io import KeyPath, YamlDocument

MAX_RECIPE_BYTES = 2**20
MOST_PROBLEMS = 100  # hints at the nearest key take time

__all__ = ["ConfigError", "Problem", "dump_recipe", "load_recipe", "plain", "without_defaults"]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe and the overrides of the command line (`rl.steps=20`, `rl=null`, `model.dtype=bfloat16`).

    A stage's `data` is completed by the run's.

    Raises `ConfigError` with every problem found, each with its key, its place and what is allowed.
    """
    document = yaml_io.parse(_text(path), str(path))
    if not document.problems and not isinstance(document.data, dict):
        raise ConfigError((_not_a_recipe(document),))
    if not isinstance(document.data, dict):
        raise ConfigError(tuple(document.problems))
    for override in overrides:
        apply_override(document, override)
    config = _validate(document)
    if config is None:
        raise ConfigError(tuple(document.problems))
    return config


def dump_recipe(config: RunConfig) -> str:
    """The whole recipe as YAML, defaults written out, keys in the schema's order; `load_recipe` reads it back equal."""
    return yaml_io.dump(plain(config))


@cache
def _adapter() -> TypeAdapter[RunConfig]:
    return TypeAdapter(RunConfig)


def plain(config: RunConfig) -> dict[str, Any]:
    """Dicts, lists and scalars, whole numbers made floats where the schema says so (`1` and `1.0` are one recipe)."""
    checked = _adapter().validate_json(json.dumps(dataclasses.asdict(config)), strict=True)
    return json.loads(json.dumps(dataclasses.asdict(checked)))


def without_defaults(config: RunConfig) -> dict[str, Any]:
    """The recipe as plain values, without keys that have their default; `load_recipe` reads it back equal."""
    return _chosen(config, plain(config))


def _chosen(section: Any, values: Any) -> Any:
    """`values`, those of `section`, without what its dataclasses have by default."""
    if isinstance(section, tuple):
        return [_chosen(item, value) for item, value in zip(section, values, strict=True)]
    if not dataclasses.is_dataclass(section):
        return values
    kept = {}
    for field in dataclasses.fields(section):
        own = getattr(section, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if field.name in ("kind", "name") or own != default:
            kept[field.name] = _chosen(own, values[field.name])
    return kept


def _text(path: str | Path) -> str:
    try:
        return read_bytes(Path(path), limit=MAX_RECIPE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"not UTF-8 text (byte {error.start}); a recipe is a YAML file"
    except FileNotFoundError:
        message = f"no such file{_near_files(Path(path))}"
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    raise ConfigError((Problem("", str(path), message),))


def _near_files(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path(__file__).parent / "recipes"
    there = sorted(file.stem for file in folder.glob("*.yaml"))
    near = nearest_names(path.stem, there) or there
    return (
        f"; recipes in {folder}: {', '.join(f'{name}.yaml' for name in near)}"
        if near
        else f"; {folder} holds no *.yaml"
    )


def _not_a_recipe(document: YamlDocument) -> Problem:
    needed = "a recipe is a mapping of keys that starts with `name:` and `output_dir:`"
    what = "the file is empty" if document.data is None else f"holds {_shown(document.data)}"
    return Problem("", document.place(()), f"{what}; {needed}")


def _validate(document: YamlDocument) -> RunConfig | None:
    """The config, or `None` with what is wrong added to the document's problems."""
    _complete_data(document.data)
    try:
        config = _adapter().validate_json(json.dumps(document.data), strict=True)
    except ValidationError as error:
        document.problems.extend(_problem(document, details) for details in error.errors()[:MOST_PROBLEMS])
        return None
    return None if document.problems else config


def _complete_data(recipe: dict[str, Any]) -> None:
    """Fill the `data` of each stage with the run's where the stage leaves a key out."""
    whole, stages = recipe.get("data"), recipe.get("stages")
    for stage in stages if isinstance(stages, list) else ():
        if isinstance(whole, dict) and isinstance(stage, dict) and isinstance(stage.get("data"), dict):
            stage["data"] = whole | stage["data"]


def _problem(document: YamlDocument, details: ErrorDetails) -> Problem:
    path: KeyPath = details["loc"]
    kind = details["type"]
    if kind == "value_error":
        return _broken_rule(document, path, str(details["ctx"]["error"]))  # type: ignore[typeddict-item]
    if kind.startswith("union_tag"):
        path = (*path, "kind")
    key, place = shown(path, document.data), document.place(in_document(path))
    if kind == "unexpected_keyword_argument":
        return Problem(key, place, f"{key}: no such key; {_advice(document, path)}")
    value = details["input"]["kind"] if kind == "union_tag_invalid" else details["input"]
    allowed = _allowed(path) or details["msg"]
    if kind in ("missing", "union_tag_not_found"):
        return Problem(key, place, f"{key} is missing: give it {allowed}")
    return Problem(key, place, f"{key} = {_shown(value)}: must be {allowed}{_choice(path, value)}")


def _broken_rule(document: YamlDocument, section: KeyPath, message: str) -> Problem:
    """A rule of the schema's `__post_init__`, whose message starts with the keys that it is about."""
    names = message.partition(" = ")[0].split(", ")
    path = (*section, *names[0].split("."))
    if not section:
        path = in_schema(by_name(path, document.data), document.data)
    prefix = f"{shown(section, document.data)}." if section else ""
    return Problem(shown(path, document.data), document.place(in_document(path)), prefix + message)


def _advice(document: YamlDocument, path: KeyPath) -> str:
    if "." in str(path[-1]):
        return "in a file, sections are nested: write each part on its own line, indented under the one before"
    if len(path) == 1 and path[0] in STAGE_KINDS:
        return f"stages are a list: write `stages:`, under it `- kind: {path[0]}`, and then its keys"
    near = suggestions(keys.nearest(path), document.data)[:3]
    if near:
        return f"did you mean {' or '.join(near)}?"
    where = f"the keys of {shown(path[:-1], document.data)}" if len(path) > 1 else "the keys here"
    return f"{where} are {', '.join(keys.section_keys(path[:-1]))}"


def _allowed(path: KeyPath) -> str:
    if len(path) == 3 and path[0] == "stages" and path[2] == "kind":
        return f"one of {', '.join(STAGE_KINDS)}"
    key = keys.find(path)
    if key is not None:
        return keys.describe(key.annotation)
    above = keys.find(path[:-1])  # the value of a free mapping, such as data.train.0.columns.image
    return keys.describe(typing.get_args(above.annotation)[1]) if above is not None else ""


def _choice(path: KeyPath, value: object) -> str:
    key = keys.find(path)
    choices: Sequence[object] = ()
    if len(path) == 3 and path[0] == "stages" and path[2] == "kind":
        choices = list(STAGE_KINDS)
    elif key is not None and typing.get_origin(key.annotation) is typing.Literal:
        choices = typing.get_args(key.annotation)
    near = nearest_names(str(value), map(str, choices))
    return f"; did you mean {near[0]}?" if near else ""


def _shown(value: object) -> str:
    """A value as the recipe writes it, cut short."""
    return shorten(json.dumps(value, ensure_ascii=False), 60)
