"""Arguments and help of `thinkvl doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from rl.cli.terminal import Overrides, console, could_not_run, stoppable


def doctor(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[RECIPE|RUN]", help="A recipe, to check this machine for it, or a run's folder."),
    ] = None,
    overrides: Overrides = None,
    push: Annotated[bool, typer.Option("--push", help="The result will be pushed: a token must be there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check this machine before a run, or find out why a run is stuck or dead; seconds, without Ray.

    Before a run: packages, memory, /dev/shm, disks, ports, an old Ray, GPUs, tokens. Of a run: how it ended, whether it
    moves, who waits for whom with stacks, its checkpoints, workers and alarms, the likely cause and what to try. Exit
    code 0: no fault; 1: a fault; 2: could not check.

    Example: `thinkvl doctor my.yaml` or `thinkvl doctor runs/quickstart`
    """
    with could_not_run(), stoppable(None):
        from rl.cli.doctor import doctor_command

        code = doctor_command(what, overrides or (), push=push, as_json=as_json, console=console)
    raise typer.Exit(code)
