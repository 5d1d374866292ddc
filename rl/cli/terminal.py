"""What all commands share: the console, the argument `overrides`, and how a command ends."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from rl.cli.errors import explain

console = Console()

Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Code that a data file or a run folder names and that you trust, such as `checks.py:f`; repeatable.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="Changes to the recipe, such as `rl.steps=20`, `rl=null` or `model.dtype=bfloat16`."),
]


@contextmanager
def stoppable(then: str | None) -> Iterator[None]:
    """Ctrl-C ends the command with exit code 130, SIGTERM with 143, and both say what has become of the work.

    A second Ctrl-C while the command cleans up changes nothing about that.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = 143 if isinstance(stop, Terminated) else 130
        end(Text("stopped" if then is None else f"stopped; {then}"), code)
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, before)


class Terminated(KeyboardInterrupt):
    """SIGTERM, which takes the same way out as Ctrl-C."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def could_not_run() -> Iterator[None]:
    """A user's mistake ends the command with exit code 2, as linters do: 1 says that there are findings."""
    try:
        yield
    except Exception as error:
        text = explain(error)
        if text is None:
            raise
        end(Text.assemble(("error", "bold red"), ": ", text), 2)


def end(text: Text, code: int) -> NoReturn:
    """Print `text` on the standard error and end the process with `code`."""
    Console(stderr=True).print(text, highlight=False, soft_wrap=True)
    sys.exit(code)
