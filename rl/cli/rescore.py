"""`thinkvl rescore`: scores the rollouts of a run with other rewards or newer verifiers, without generating."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.table import Table

from configs.data import recipe_verifiers
from configs.errors import UserError
from configs.load import load_recipe
from configs.rewards import RewardConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.text import counted
from rewards.scorer import Scorer
from rewards.types import Score
from rl.cli.score import reward_term, split_terms
from rl.rollout_log import read_rollouts, task_of
from rl.run.console import PlainConsole
from rl.run.progress import StageProgress
from rl.run.scoring import check_run_of_others

_OUTPUT = pa.schema(
    [
        *((name, pa.int32()) for name in ("step", "group", "sample")),
        *((name, pa.string()) for name in ("task", "source", "old_verdict", "new_verdict", "rule", "extracted")),
        *((name, pa.float64()) for name in ("old_reward", "new_reward")),
    ]
)
_KEPT = ("step", "group", "sample", "task", "source", "verdict", "reward")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescored:
    """One rollout with its old and its new score; a reward is None if a verifier failed."""

    row: dict[str, Any]
    score: Score

    @property
    def verdicts(self) -> tuple[str, str]:
        """The kinds of the old and the new verdict."""
        return self.row["verdict"], self.score.verdict.kind.value


def rescore_command(
    name: str, *, rewards: Sequence[str], output: Path | None, console: PlainConsole, allowed: Sequence[str] = ()
) -> list[Rescored]:
    """Score every rollout of the run `name` again, print old against new by source and verdict, write `output`.

    `rewards` are terms as `NAME` or `NAME=WEIGHT`, by default those of the run's recipe. Raises UserError or
    PluginError for a mistake of the user.
    """
    run = Path(name).expanduser()
    if not (run / "recipe.yaml").is_file():
        raise UserError(f"{name}: no run is there (no recipe.yaml); name the folder of a run, its output_dir")
    config = load_recipe(run / "recipe.yaml")
    stage, folder = _last_rollouts(name, run, config)
    terms = [reward_term(text) for item in rewards for text in split_terms(item)] or list(stage.rewards)
    own = [term.use for term in terms] if rewards else []
    config = replace(config, stages=(replace(stage, rewards=tuple(terms)),))
    check_run_of_others(config, (*allowed, *own), run / "recipe.yaml")
    named = (*recipe_verifiers(*config.all_data), *allowed)
    with Scorer(terms, base=Path.cwd(), judge=stage.judge, allowed=named) as scorer:
        results = list(_rescore(folder, scorer, console))
    _print(results, terms, console)
    if output is not None:
        pq.write_table(pa.Table.from_pylist([_flat(r) for r in results], schema=_OUTPUT), output)
        console.print(f"new scores in {output}")
    return results


def _last_rollouts(name: str, run: Path, config: RunConfig) -> tuple[RLConfig, Path]:
    """The last RL stage that has rollouts, and their folder. Raises UserError if no stage has any."""
    folders = {stage.name: run / stage.name / "rollouts" for stage in config.rl_stages}
    for stage in reversed(config.rl_stages):
        if any(folders[stage.name].glob("step-*.parquet")):
            return stage, folders[stage.name]
    looked = ", ".join(str(folder) for folder in folders.values())
    where = f"{looked} holds no step-*.parquet" if folders else "it has no stage of kind rl"
    raise UserError(f"{name}: this run has no rollouts yet ({where})")


def _rescore(folder: Path, scorer: Scorer, console: PlainConsole) -> Iterator[Rescored]:
    """Score the rollouts, one step of the run at a time."""
    steps = len(list(folder.glob("step-*.parquet")))
    with StageProgress(console, "rescore", total=steps) as bar:
        for _, rows in groupby(read_rollouts(folder), key=lambda row: row["step"]):
            own = list(rows)
            tasks = {row["task"]: task_of(row, folder) for row in own}
            scores = scorer.score([row["text"] for row in own], [tasks[row["task"]] for row in own])
            kept = ({name: row[name] for name in _KEPT} for row in own)  # tokens and texts would fill the memory
            yield from (Rescored(row=row, score=score) for row, score in zip(kept, scores, strict=True))
            bar.advance({"rollouts": len(own)})


def _flat(result: Rescored) -> dict[str, Any]:
    old, new = result.verdicts
    verdict = result.score.verdict
    return {
        **{name: result.row[name] for name in ("step", "group", "sample", "task", "source")},
        "old_verdict": old,
        "new_verdict": new,
        "rule": verdict.rule,
        "extracted": verdict.extracted,
        "old_reward": result.row["reward"],
        "new_reward": result.score.reward,
    }


def _print(results: Sequence[Rescored], terms: Sequence[RewardConfig], console: PlainConsole) -> None:
    """Print a table with a row for each source and pair of verdicts, and the total."""
    cells: dict[tuple[str, str, str], list[Rescored]] = defaultdict(list)
    for result in results:
        cells[(result.row["source"], *result.verdicts)].append(result)
    named = " + ".join(f"{t.weight:g} {t.use}" for t in terms)
    table = Table("source", "old verdict", "new verdict", "rollouts", "old reward", "new reward", title=named)
    for (source, old, new), own in sorted(cells.items()):
        mark = new if old == new else f"{new} *"
        table.add_row(source, old, mark, str(len(own)), _mean(r.row["reward"] for r in own), _new(own))
    table.add_section()
    table.add_row("all", "", "", str(len(results)), _mean(r.row["reward"] for r in results), _new(results))
    console.print(table)
    changed = sum(old != new for old, new in (r.verdicts for r in results))
    console.print(f"{changed} of {counted(len(results), 'verdict')} changed (*)")


def _new(results: Sequence[Rescored]) -> str:
    return _mean(r.score.reward for r in results)


def _mean(rewards: Any) -> str:
    """The mean reward, without the failed verifications, which have none."""
    known = [reward for reward in rewards if reward is not None]
    return f"{np.mean(known):.3f}" if known else "-"
