"""Starts and ends the fork server of a pool: its command line, its environment, and the socket between the two."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from rewards.sandbox.worker_process import WorkerClass

_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = """
import json, sys
settings = json.loads(sys.argv[1])
sys.path[:] = settings["path"]
from rewards.sandbox.fork_server import main
main(settings)
"""
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "HOME")
_END_SECONDS = 5.0


class ForkServerProcess:
    """The child of this process that all workers are children of.

    It is started by `subprocess`, not by `multiprocessing`: nothing of the caller's `__main__` is imported again, no
    lock or descriptor of a threaded parent is inherited, and of its environment only what is named.
    """

    def __init__(self, kind: WorkerClass) -> None:
        self.control, theirs = socket.socketpair()
        settings = {
            "owner": os.getpid(),
            "control": theirs.fileno(),
            "kind": dataclasses.asdict(kind),
            "path": _search_path(),
        }
        names = (*_KEPT_ENVIRONMENT, *kind.environment)
        environment = {name: os.environ[name] for name in names if name in os.environ}
        # One thread each, for the cores have one worker each; one hash seed, so that all workers agree.
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-s", "-c", _BOOT, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd=kind.folder,
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for the owner
            )
        self.pid = self._process.pid

    def send(self, message: bytes, fd: int | None = None) -> None:
        """Send a message and, with it, a descriptor."""
        socket.send_fds(self.control, [message], [] if fd is None else [fd])

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises EOFError, an OSError of ours, where the fork server has ended."""
        data = b""
        while len(data) < size:
            part = self.control.recv(size - len(data))
            if not part:
                raise ConnectionError("the fork server has ended")
            data += part
        return data

    def end(self) -> None:
        """Let it kill its workers and end; where it does not, the kernel ends the workers with it."""
        self.control.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """In a fork of the owner: the process is not ours to end."""
        self.control.close()
        self._process.returncode = 0  # so that its finalizer does not look for a child that is not there


def _search_path() -> list[str]:
    """The caller's import path with ours first, so that a `rewards.py` in the working directory is not found."""
    return [_ROOT, *(entry for entry in sys.path if Path(entry).is_absolute() and entry != _ROOT)]
