"""Arguments and help of the commands that need no model: `audit`, `score`, `check-reward`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from configs.rewards import RewardConfig
from rl.cli.terminal import Allow, Overrides, console, could_not_run, stoppable

# Torch, Ray and transformers are imported inside the commands: help and mistakes in a recipe show at once.


_REWARD = RewardConfig()  # its defaults


def audit(
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A .jsonl or .parquet file, digit_sums, easy_vqa, a hub name, or a recipe.",
        ),
    ],
    overrides: Overrides = None,
    split: Annotated[str | None, typer.Option(help="Such as held_out or train[:10%]; by default train.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Tasks of each source, evenly spread; by default all, 1000 where endless."),
    ] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(metavar="FINDING", help="A kind of finding that is known; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of the report; by default audits/NAME.")] = None,
    allow: Allow = None,
) -> None:
    """Check data and verifiers before a GPU is used: a page, JSON, and the exit code of a linter.

    Every reference must pass its own verifier, also when it is written in another form. Cheating answers (empty,
    hedged, all letters, the reference of another row, the question copied, very long) must earn nothing. Duplicates,
    leaks into held-out tasks, ambiguous options and broken images are listed. Exit code 0: clean; 1: findings; 2: could
    not run.

    Examples: `thinkvl audit easy_vqa --limit 1000` and `thinkvl audit my.yaml --ignore duplicate`
    """
    with could_not_run(), stoppable("no report was written"):
        from rl.cli.audit import AuditOptions, audit_command

        options = AuditOptions(
            split=split, limit=limit, ignore=tuple(ignore or ()), output=output, allowed=tuple(allow or ())
        )
        code = audit_command(data, overrides=overrides or (), options=options, console=console)
    raise typer.Exit(code)


def score(
    file: Annotated[Path, typer.Argument(help="A .jsonl file: `response` (or `responses`) and `answer` on each line.")],
    verifier: Annotated[str, typer.Option(help="For rows that name none and have no choices.")] = "math",
    rewards: Annotated[
        list[str] | None,
        typer.Option(metavar="TERM[=WEIGHT]", help="A reward term to add, such as `format=0.1`; repeatable."),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="Its reward terms and its judge are used.")] = None,
    column: Annotated[
        list[str] | None, typer.Option(metavar="OURS=THEIRS", help="A column of another name; repeatable.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="By default FILE.verdicts.jsonl beside the file.")] = None,
    allow: Allow = None,
) -> None:
    """Score responses from anywhere: verdicts as JSON lines, accuracy by source, how the verdicts fell.

    A line that cannot be used is reported by number and counted. Exit code 0: every response was judged; 1: some lines
    or references were bad, or a verifier failed; 2: could not run.

    Example: `thinkvl score answers.jsonl --rewards format=0.1 --rewards brevity.py:brevity=0.05`
    """
    with could_not_run(), stoppable("no verdicts were written"):
        from rl.cli.score import ScoreOptions, score_command

        options = ScoreOptions(
            verifier=verifier,
            rewards=tuple(rewards or ()),
            recipe=recipe,
            columns=tuple(column or ()),
            output=output,
            allowed=tuple(allow or ()),
        )
        code = score_command(file, options=options, console=console)
    raise typer.Exit(code)


def check_reward(
    reward: Annotated[str, typer.Argument(help="As in a recipe: `file.py:function`, `trl:file.py:function`, a name.")],
    env: Annotated[list[str] | None, typer.Option(help="A variable that it gets; repeatable.")] = None,
    imports: Annotated[list[str] | None, typer.Option(help="A module to import before; repeatable.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Limit of one call.")] = _REWARD.seconds,
    memory_mb: Annotated[int, typer.Option(min=64, help="Limit of its process.")] = _REWARD.memory_mb,
) -> None:
    """Test a reward of your own: load it as a run does, and call it on ordinary and on hostile responses.

    Exit code 0 if it can be used, 1 if a check failed.

    Example: `thinkvl check-reward brevity.py:brevity`
    """
    with stoppable(None):
        from rl.cli.check_reward import check_reward_command

        config = RewardConfig(
            use=reward, env=tuple(env or ()), imports=tuple(imports or ()), seconds=seconds, memory_mb=memory_mb
        )
        raise typer.Exit(check_reward_command(reward, config, console=console))
