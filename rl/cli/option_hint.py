"""A hint for who writes a recipe's key like an option: `--rl.steps=20`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import typer
from typer.core import TyperCommand

from rl.cli.terminal import end


class RecipeCommand(TyperCommand):
    """A command that takes changes of the recipe, which have no dashes."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:
        """End with exit code 2 where one of `args` is a key of the recipe with dashes; else parse them."""
        known = {name for parameter in self.get_params(ctx) for name in (*parameter.opts, *parameter.secondary_opts)}
        hint = dashes_hint(args, known)
        if hint is not None:
            end(f"error: {hint}", 2)
        return super().parse_args(ctx, args)


def dashes_hint(args: Sequence[str], known: set[str]) -> str | None:
    """What to write in the place of the first of `args` that is a key with dashes; None where none is."""
    for at, given in enumerate(args):
        if given == "--":
            return None
        name, equals, value = given.partition("=")
        key = name.lstrip("-")
        if not given.startswith("-") or name in known or not _is_key(key):
            continue
        following = args[at + 1] if at + 1 < len(args) and not args[at + 1].startswith("-") else "VALUE"
        return f"{given}: no such option; a change of the recipe has no dashes: {key}={value if equals else following}"
    return None


def _is_key(name: str) -> bool:
    """Whether it looks like a key of a recipe: with dots, or one of its sections and plain keys."""
    from configs.schema import RunConfig

    parts = name.split(".")
    return name in {field.name for field in fields(RunConfig)} or (len(parts) > 1 and parts[0].isidentifier())
