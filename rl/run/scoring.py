"""Opens a recipe's scorer, and checks which code a recipe from a run's folder may run."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from configs.data import DataConfig, recipe_verifiers
from configs.engine import is_own_engine
from configs.errors import UserError
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.stage import StageConfig
from rewards.pending_score import VERIFIER, part_name
from rewards.scorer import Scorer
from rewards.shaping import TERMS
from rewards.verifiers.builtin import is_built_in


def scoring_stage(config: RunConfig, stage: StageConfig) -> RLConfig | None:
    """The stage whose rewards and judge score `stage`: itself if it is RL, else the run's last RL stage."""
    return stage if isinstance(stage, RLConfig) else config.last_rl


def open_scorer(stage: RLConfig | None, data: DataConfig, *, base: Path, allowed: Collection[str] = ()) -> Scorer:
    """The scorer of an RL stage on some data; `allowed` are further plug-ins that rows may name. Raises PluginError."""
    terms, judge = (stage.rewards, stage.judge) if stage else ((), None)
    return Scorer(terms, base=base, judge=judge, allowed=(*recipe_verifiers(data), *allowed))


def check_run_of_others(config: RunConfig, allowed: Collection[str], where: Path, *, generates: bool = False) -> None:
    """Refuse a run folder's recipe that runs plug-ins or sends a key, unless each is allowed by name.

    `generates`: its engine will run too. A run folder is data: it may come from somebody else. Raises UserError with
    the flags that allow what it names.
    """
    engine = [stage.engine for stage in config.rl_stages if generates and is_own_engine(stage.engine)]
    refused = [name for name in dict.fromkeys([*_code_and_keys(config), *engine]) if name not in allowed]
    if refused:
        flags = " ".join(f"--allow '{name}'" for name in refused)
        raise UserError(
            f"{where}: this recipe runs code, or sends a key to a judge: {', '.join(refused)}. A run folder may come "
            f"from somebody else, so this must be allowed by name; if you trust it, add {flags}"
        )


def _code_and_keys(config: RunConfig) -> Iterator[str]:
    names = list(recipe_verifiers(*config.all_data))
    for term in (term for stage in config.rl_stages for term in stage.rewards):
        names += [*term.only_for, *([] if term.use == VERIFIER or part_name(term.use) in TERMS else [term.use])]
    yield from (name for name in names if not is_built_in(name))
    yield from (stage.judge.url for stage in config.rl_stages if stage.judge and stage.judge.key_env)
