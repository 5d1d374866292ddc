"""A terminal that shows what the run says and nothing else: output of libraries goes to a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rl.run.console import PlainConsole


@contextmanager
def own_screen(console: PlainConsole, path: Path) -> Iterator[None]:
    """Within the block only `console` reaches the terminal; warnings and logs of libraries are appended to `path`.

    Standard output and error are replaced as file descriptors, so that libraries in C and child processes are included.
    At the end a line says where the file is; an empty one is removed. Does nothing where the console does not write to
    a terminal, or to one that cannot redraw: logs stay as they are.
    """
    if not (console.can_redraw and console.file is sys.stdout and console.file.isatty()):
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    moved = {stream: os.dup(stream) for stream in (1, 2) if os.isatty(stream)}
    with path.open("ab") as log, os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace") as terminal:
        begin = log.tell()
        for stream in moved:
            os.dup2(log.fileno(), stream)
        console.file = terminal
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            terminal.flush()
            console.file = sys.stdout
            for stream, kept in moved.items():
                os.dup2(kept, stream)
                os.close(kept)
    written = path.stat().st_size
    if written > begin:
        console.print(f"what libraries wrote is in {path}", style="dim")
    elif not written:
        path.unlink()
