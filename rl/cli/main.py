"""The entry point `thinkvl`: the table of commands and the exit codes. Arguments are in `rl.cli.*_commands`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # before a user's rewards.py or configs.py

from configs.version import VERSION
from rl.cli import curation_commands, data_commands, doctor_commands, model_commands, run_commands
from rl.cli.option_hint import RecipeCommand
from rl.cli.terminal import end_with

app = typer.Typer(
    name="thinkvl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"thinkvl {VERSION}")
        raise typer.Exit


@app.callback()
def thinkvl(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Turn a vision-language model into one that thinks: supervised warm-up, RL with verifiers, export.

    Begin with `thinkvl run configs/recipes/quickstart.yaml`: minutes on a laptop. Then talk to the result with
    `thinkvl chat`, measure it with `thinkvl eval`, publish it with `thinkvl export`.
    """


app.command(cls=RecipeCommand)(run_commands.run)
app.command(cls=RecipeCommand)(run_commands.plan)
app.command(cls=RecipeCommand)(doctor_commands.doctor)
app.command(name="eval", cls=RecipeCommand)(model_commands.evaluate)
app.command()(run_commands.book)
app.command()(run_commands.compare)
app.command()(run_commands.rescore)
app.command()(run_commands.replay)
app.command()(model_commands.export)
app.command()(model_commands.chat)
app.command(name="check-reward")(data_commands.check_reward)
app.command(cls=RecipeCommand)(data_commands.audit)
app.command()(data_commands.score)
app.command(cls=RecipeCommand)(curation_commands.curate)
app.command(name="build-cot", cls=RecipeCommand)(curation_commands.build_cot)
app.command(cls=RecipeCommand)(run_commands.submit)


def main() -> None:
    """Run a command. Exit codes: 1 with one message for a user's error, 2 for wrong usage, 130 for Ctrl-C."""
    # Before torch is imported: threads that wait by spinning take the cores from Ray's workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        app()
    except Exception as error:
        end_with(error, 1)


if __name__ == "__main__":
    main()
