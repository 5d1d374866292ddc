"""The scorer of a recipe, and what a recipe of somebody else must be allowed to run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from configs.data import recipe_verifiers
from configs.engine import is_own_engine
from configs.errors import UserError
from configs.schema import RunConfig
from rewards.pending_score import VERIFIER, part_name
from rewards.scorer import Scorer
from rewards.shaping import TERMS
from rewards.verifiers.table import is_built_in


def open_scorer(config: RunConfig, *, base: Path, allowed: Collection[str] = ()) -> Scorer:
    """The scorer of a recipe; `allowed` are further plug-ins that rows may name. Raises PluginError."""
    terms, judge = (config.rl.rewards, config.rl.judge) if config.rl else ((), None)
    return Scorer(terms, base=base, judge=judge, allowed=(*recipe_verifiers(config.data), *allowed))


def check_run_of_others(config: RunConfig, allowed: Collection[str], where: Path, *, generates: bool = False) -> None:
    """Refuse a run folder's recipe that runs plug-ins or sends a key, unless each is allowed by name.

    `generates`: its engine will run too. A run folder is data: it may come from somebody else. Raises UserError with
    the flags that allow what it names.
    """
    engine = [config.rl.engine] if generates and config.rl and is_own_engine(config.rl.engine) else []
    refused = [name for name in dict.fromkeys([*_code_and_keys(config), *engine]) if name not in allowed]
    if refused:
        flags = " ".join(f"--allow '{name}'" for name in refused)
        raise UserError(
            f"{where}: this recipe runs code, or sends a key to a judge: {', '.join(refused)}. A run folder may come "
            f"from somebody else, so this must be allowed by name; if you trust it, add {flags}"
        )


def _code_and_keys(config: RunConfig) -> Iterator[str]:
    names = list(recipe_verifiers(config.data))
    for term in config.rl.rewards if config.rl else ():
        names += [*term.only_for, *([] if term.use == VERIFIER or part_name(term.use) in TERMS else [term.use])]
    yield from (name for name in names if not is_built_in(name))
    if config.rl and config.rl.judge and config.rl.judge.key_env:
        yield config.rl.judge.url
