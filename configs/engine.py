"""The built-in engines, and the names that `rl.engine` may have. A new engine is its file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from configs.rules import check
from configs.text import did_you_mean

# Name to `module:function`, which makes the engine from an `EngineSpec`. The module is imported in the worker that uses
# it: vLLM is two gigabytes that few have.
ENGINES: Mapping[str, str] = {
    "transformers": "rollouts.engines.transformers:open_transformers",
    "vllm": "rollouts.engines.vllm:open_vllm",
}


def is_own_engine(use: str) -> bool:
    """True for an engine of the user, `file.py:Class`."""
    path, _, name = use.rpartition(":")
    return path.endswith(".py") and name.isidentifier()


def check_engine(use: str) -> None:
    """Raise ValueError for a name that no engine can have."""
    own, hint = is_own_engine(use), did_you_mean(use, ENGINES)
    check(own or use in ENGINES, "engine", use, f"{', '.join(ENGINES)} or `file.py:Class`{hint}")
