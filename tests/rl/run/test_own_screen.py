"""On a real terminal a run shows its own text alone; what libraries write is in a file."""

import os
import pty
import select
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import logging, os, subprocess, sys, warnings
from pathlib import Path
from rl.run.console import PlainConsole
from rl.run.own_screen import own_screen

console = PlainConsole()
with own_screen(console, Path(sys.argv[1])):
    console.print(f"ours, {console.width} columns")
    if len(sys.argv) > 2:
        warnings.warn("a warning of a library")
        logging.getLogger("ray").warning("a log line")
        print("a library prints")
        os.write(2, b"a library in C\\n")
        subprocess.run([sys.executable, "-c", "print('a child process')"])
    if sys.argv[-1] == "fails":
        raise RuntimeError("the run fails")
console.print("after")
print("printed after")
"""


def seen(*arguments, terminal=True, **environment):
    """What the program writes to a terminal of 90 columns, or to a pipe."""
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), *map(str, arguments)]
    sizes = {"COLUMNS", "LINES"}  # pytest-xdist sets them, and they would count more than the terminal
    environ = {**{k: v for k, v in os.environ.items() if k not in sizes}, "TERM": "xterm", **environment}
    if not terminal:
        return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60).stdout
    ours, theirs = pty.openpty()
    import fcntl
    import struct
    import termios

    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=environ) as process:
        os.close(theirs)
        found = b""
        while select.select([ours], [], [], 60)[0]:
            try:
                found += os.read(ours, 4096)
            except OSError:  # the program has ended
                break
        process.wait(timeout=60)
    os.close(ours)
    return found.decode().replace("\r\n", "\n")


def test_libraries_write_to_the_file(tmp_path):
    path = tmp_path / "library.log"
    text = seen(path, "noisy")
    assert text.startswith("ours, 90 columns\n")
    assert "library" not in text.replace("library.log", "").replace("what libraries wrote", "")
    assert text.endswith("after\nprinted after\n")
    assert f"what libraries wrote is in {path}" in text
    log = path.read_text()
    for part in ("a warning of a library", "a log line", "a library prints", "a library in C", "a child process"):
        assert part in log


def test_a_quiet_run_leaves_no_file(tmp_path):
    assert seen(tmp_path / "library.log") == "ours, 90 columns\nafter\nprinted after\n"
    assert not [*tmp_path.iterdir()]


def test_an_error_is_shown_on_the_terminal(tmp_path):
    text = seen(tmp_path / "library.log", "fails")
    assert "RuntimeError: the run fails" in text
    assert "a log line" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_logs_stay_as_they_are_without_a_terminal_that_redraws(tmp_path, terminal):
    text = seen(tmp_path / "library.log", "noisy", terminal=terminal, TERM="dumb")
    assert "a library prints" in text
    assert "a child process" in text
    assert not [*tmp_path.iterdir()]
