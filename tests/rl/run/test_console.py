"""The console obeys nothing that data or models say, wherever the text stands."""

import io
import os

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table
from rich.text import Text

from rl.run.console import PlainConsole
from rl.run.progress import StageProgress

HOSTILE = "a\x1b]8;;http://x\x1b\\b\x9b31m\u202e[/bold][link=http://evil]c[/link] :smile: http://me:pass@h/\x07"


def printed(what, *, terminal=True, **options):
    file = io.StringIO()
    colours = "truecolor" if terminal else None
    console = PlainConsole(file=file, width=200, force_terminal=terminal, color_system=colours, **options)
    what(console)
    return file.getvalue()


def table(text):
    made = Table(text, "count", title=text)
    made.add_row(text, Text(text, style="bold"))
    return made


def in_progress(console, text):
    with StageProgress(console, text, total=2) as bar:
        bar.advance({text: 1.0})


PLACES = {
    "text": lambda console: console.print(HOSTILE),
    "styled": lambda console: console.print(HOSTILE, style="dim"),
    "Text": lambda console: console.print(Text.assemble(("error", "bold red"), ": ", HOSTILE)),
    "table": lambda console: console.print(table(HOSTILE)),
    "progress": lambda console: in_progress(console, HOSTILE),
    "rule": lambda console: console.rule(HOSTILE),
}


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_obeyed(place, terminal):
    text = printed(PLACES[place], terminal=terminal)
    assert "\x1b]" not in text, "no link, no title"
    assert not {"\x07", "\x9b", "\u202e"} & set(text)
    assert "[/bold]" in text
    assert ":smile:" in text
    assert "pass@" not in text
    if not terminal:
        assert "\x1b" not in text


def test_our_own_styles_still_work():
    assert printed(lambda console: console.print(Text("hm", style="dim"))) == "\x1b[2mhm\x1b[0m\n"
    assert "\x1b[" in printed(lambda console: console.print(table("x")))


def test_texts_keep_their_lines_and_tables_fit():
    long = "word " * 100
    assert printed(lambda console: console.print(f"{long}\nsecond"), terminal=False) == f"{long}\nsecond\n"
    lines = printed(lambda console: console.print(table(long)), terminal=False).splitlines()
    assert max(map(len, lines)) <= 200


def test_an_identifier_of_a_megabyte_is_cut():
    text = printed(lambda console: console.print("task " + "x" * 10**6 + " goes"))
    assert len(text) < 30_000
    assert text.startswith("task xxx")
    assert "980,010 more characters" in text


def test_a_column_of_text_is_no_markup():
    with Progress(TextColumn("{task.description}", markup=False), console=PlainConsole(file=io.StringIO())) as bar:
        bar.add_task("[/bold]")


def test_a_terminal_that_says_no_size_still_shows_its_text():
    """That of `script` without one, and of some job runners, has 0 columns."""
    ours, terminal = os.openpty()
    with os.fdopen(terminal, "w") as file:
        console = PlainConsole(file=file, _environ={"TERM": "xterm"})
        assert console.size.width > 0
        console.print("done in 3 s")
        assert b"done in 3 s" in os.read(ours, 100)
    os.close(ours)
