"""The command `thinkvl`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from configs.errors import ConfigError
from configs.load import load_recipe
from rl.errors import UserError

app = typer.Typer(
    name="thinkvl",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Turn Kimi-VL into a thinking model: SFT warm-starts, reinforcement learning with verifiers, export.",
)
console = Console()


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe, such as configs/recipes/quickstart.yaml.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value, such as rl.steps=20 or rl=null.")] = None,
) -> None:
    """Run every stage of a recipe: instruct SFT, long-CoT SFT, RL, evaluation, export.

    The same command continues a run that was stopped.
    """
    config = load_recipe(recipe, overrides or ())
    from rl.run import run as run_recipe  # torch and Ray load only after the recipe is known to be right

    run_recipe(config, base=Path.cwd(), console=console)


def main() -> None:
    """Entry point: user errors become one clear text and exit code 1, Ctrl-C becomes 130."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        app(standalone_mode=False)
    except (UserError, ConfigError) as error:
        _fail(str(error), 1)
    except typer.Abort:
        _fail("stopped", 130)
    except KeyboardInterrupt:
        _fail("stopped; the same command continues the run", 130)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except Exception as error:
        import click

        if isinstance(error, click.ClickException):
            error.show()
            sys.exit(error.exit_code)
        raise


def _fail(message: str, code: int) -> None:
    Console(stderr=True).print(f"[bold red]error[/]: {message}" if code == 1 else message, highlight=False)
    sys.exit(code)


if __name__ == "__main__":
    main()
