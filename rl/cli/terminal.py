"""Shared by all commands: the console, the argument `overrides`, and the handling of signals and exit codes."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Annotated, NoReturn

import typer
from rich.text import Text

from configs.text import printable
from rl.cli.errors import explain
from rl.run.console import PlainConsole

console = PlainConsole()

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
    """Ctrl-C ends the command with exit code 130, SIGTERM with 143; both print whether the work is kept.

    A second Ctrl-C during the clean-up is ignored.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        code = 143 if isinstance(stop, Terminated) else 130
        end("stopped" if then is None else f"stopped; {then}", code)
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, before)


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM; handled like Ctrl-C."""


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


@contextmanager
def could_not_run() -> Iterator[None]:
    """A user's error ends the command with exit code 2, as in linters, where 1 means that there are findings."""
    try:
        yield
    except Exception as error:
        end_with(error, 2)


def end(text: str, code: int) -> NoReturn:
    """Print `text` on standard error and end the process with `code`."""
    PlainConsole(stderr=True).print(text)
    sys.exit(code)


def end_with(error: Exception, code: int) -> NoReturn:
    """End the process with `code` and the message of a user's error; print the traceback of any other.

    The traceback is printed without control sequences, since its message may quote data.
    """
    text = explain(error)
    if text is None:
        sys.excepthook = _print_traceback
        raise error
    PlainConsole(stderr=True).print(Text("error", style="bold red"), text, sep=": ")
    sys.exit(code)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace)), keep="\n\t"))
