"""The names that `rl.engine` may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from configs.rules import check
from configs.text import did_you_mean

ENGINES = ("transformers", "vllm")  # the built-in ones


def is_own_engine(use: str) -> bool:
    """True for an engine of the user, `file.py:Class`."""
    path, _, name = use.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


def check_engine(use: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for a name that no engine can have, and for options of a built-in one."""
    own, hint = is_own_engine(use), did_you_mean(use, ENGINES)
    check(own or use in ENGINES, "engine", use, f"{', '.join(ENGINES)} or `file.py:Class`{hint}")
    check(own or not options, "engine_options", dict(options), "left out for a built-in engine")
