"""Every key of the schema is read somewhere, and their number is limited."""

import ast
import dataclasses
import typing

import pytest

from configs import (
    algorithms,
    data,
    long2short,
    long_context,
    model,
    optimizer,
    prompt,
    ranks,
    rewards,
    rl,
    schema,
    stage,
    stage_kinds,
    supervised,
    task_sampler,
    vit,
)
from kimi_vl import TinySizes

# A new key has to be worth it: users must be able to know them all.
MOST = 148
SCHEMA = (
    *(algorithms, data, long2short, long_context, model, optimizer, prompt, ranks, rewards, rl, schema),
    *(stage, stage_kinds, supervised, task_sampler, vit),
)
# What they read themselves does not count, but `configs.data` also has functions that others call.
UNCOUNTED = [part.__name__ for part in SCHEMA if part is not data]


def classes():
    """The schema's dataclasses, each once; those without the mark of a section hold no keys of a recipe."""
    found = {value for module in SCHEMA for value in vars(module).values() if dataclasses.is_dataclass(value)}
    return sorted((cls for cls in found if hasattr(cls, "__pydantic_config__")), key=lambda cls: cls.__name__)


def is_section(annotation):
    """Whether a field holds another dataclass of the schema (or a list of them), so is no knob by itself."""
    return any(dataclasses.is_dataclass(part) for part in (annotation, *typing.get_args(annotation)))


def fields():
    """`Class.field` of every field."""
    for cls in classes():
        hints = typing.get_type_hints(cls)
        inherited = {field.name for base in cls.__mro__[1:-1] for field in dataclasses.fields(base)}  # listed once
        own = [field.name for field in dataclasses.fields(cls) if field.name not in inherited]
        yield from ((cls, name, is_section(hints[name])) for name in own)


def names_read(modules):
    """Every attribute that the packages read outside the schema, `x.name` or `getattr(x, "name")`."""
    found = set()
    for module in modules.values():
        if module.name in UNCOUNTED:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
                found.update(arg.value for arg in node.args[1:2] if isinstance(arg, ast.Constant))
    return found


def test_every_key_is_read_somewhere(modules):
    # `model.tiny` is handed to the model family as a whole.
    read = names_read(modules) | {field.name for field in dataclasses.fields(TinySizes)}
    unread = [f"{cls.__name__}.{name}" for cls, name, _ in fields() if name not in read]
    assert not unread, f"no package reads: {', '.join(unread)}"


def test_there_are_few_enough_knobs():
    knobs = [f"{cls.__name__}.{name}" for cls, name, section in fields() if not section]
    assert len(knobs) <= MOST


def test_the_sections_of_every_file_are_looked_at():
    names = {cls.__name__ for cls in classes()}
    assert {"RunConfig", "RLConfig", "LossConfig", "KLConfig", "CriticConfig", "CorrectionConfig"} <= names
    assert not {"Algorithm", "AlgorithmParts"} & names, "the table of algorithms is no key"


def test_the_check_sees_an_unread_key(modules):
    without = {"rl": modules["rl"]}  # an empty package reads nothing
    with pytest.raises(AssertionError, match=r"no package reads: .*RLConfig\.steps, .*RunConfig\.export"):
        test_every_key_is_read_somewhere(without)
