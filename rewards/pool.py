"""A worker process that a hostile answer cannot stall: long-lived, one request at a time, killed at the deadline.

The child is started by `subprocess`, not by `multiprocessing`: nothing of the caller's `__main__` is imported again,
no lock of a threaded parent is inherited, and no secret is, since its environment is empty but for a few names.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).resolve().parent.parent)
_BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import {module} as m; m.serve({memory})"
_KEPT_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT", "TMPDIR")


class WorkerTimeout(Exception):
    """The request was not answered by its deadline; the worker was killed."""


class WorkerDied(Exception):
    """The worker ended, or could not start, while it held the request."""


class Worker:
    """One child process behind a lock. It starts at the first call, and again after each kill.

    Should the owner die while the child is busy, a CPU limit of its own ends the child (`cpu_seconds` in the request).

    `module` must have `serve(memory_bytes)`, which reads one JSON line a request from standard input and writes one
    a response to standard output, after a first line that says it is ready. `seconds` is the deadline of a call that
    names none, counted from the moment the request is sent; starting up has its own, `start_seconds`.
    Calls from any thread are safe; they wait for each other. A forked copy of the owner gets a child of its own.
    """

    def __init__(
        self,
        module: str = "rewards.symbolic",
        *,
        seconds: float = 1.5,
        start_seconds: float = 120.0,
        memory_bytes: int = 2 << 30,
    ) -> None:
        self.seconds = seconds
        self.kills = 0  # workers killed so far, for metrics
        self._module = module
        self._start_seconds = start_seconds
        self._memory = memory_bytes
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = os.getpid()
        self._finalizer: weakref.finalize[Any, Any] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None where none runs."""
        return self._process.pid if self._process is not None else None

    def call(self, request: dict[str, Any], *, seconds: float | None = None) -> dict[str, Any]:
        """Send `request` and return the answer.

        Raises WorkerTimeout or WorkerDied; in both cases the next call gets a fresh worker.
        """
        self._after_fork()
        with self._lock:
            process = self._process
            if process is None or process.poll() is not None:
                process = self._start()
            allowed = self.seconds if seconds is None else seconds
            deadline = time.monotonic() + allowed
            try:
                _write_line(process, {**request, "cpu_seconds": allowed}, deadline)
                return json.loads(_read_line(process, deadline))
            except TimeoutError as error:
                self._kill()
                raise WorkerTimeout(f"no answer within {allowed} s") from error
            except (OSError, EOFError, ValueError) as error:
                code = self._kill()
                raise WorkerDied(f"the worker ended with status {code}: {type(error).__name__}") from error

    def close(self) -> None:
        """Kill the child and wait for it. A later call starts a new one."""
        self._after_fork()
        with self._lock:
            self._kill(counted=False)

    def _after_fork(self) -> None:
        if os.getpid() == self._owner:
            return
        self._owner = os.getpid()  # a forked copy: the child belongs to the parent, and its lock may be held there
        self._lock = threading.Lock()
        self._process = None
        if self._finalizer is not None:
            self._finalizer.detach()

    def _start(self) -> subprocess.Popen[bytes]:
        boot = _BOOT.format(module=self._module, memory=self._memory)
        environment = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-I", "-c", boot, json.dumps(_search_path())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd="/" if os.name == "posix" else None,
        )
        self._process = process
        self._finalizer = weakref.finalize(self, _end, process, os.getpid())
        try:
            _read_line(process, time.monotonic() + self._start_seconds)
        except (OSError, EOFError) as error:
            code = self._kill()
            raise WorkerDied(
                f"the worker did not start (status {code}); try `python -c 'import {self._module}'` to see why"
            ) from error
        return process

    def _kill(self, *, counted: bool = True) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if self._finalizer is not None:
            self._finalizer.detach()
        self.kills += counted
        return _end(process, self._owner)


def _search_path() -> list[str]:
    """The caller's import path with ours first, so that a `rewards.py` in the working directory is not found."""
    return [_ROOT, *(entry for entry in sys.path if Path(entry).is_absolute() and entry != _ROOT)]


def _end(process: subprocess.Popen[bytes], owner: int) -> int | None:
    if os.getpid() != owner:
        return None
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    return process.wait()


def _wait(fd: int, event: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(fd, event)
    if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError


def _write_line(process: subprocess.Popen[bytes], request: dict[str, Any], deadline: float) -> None:
    assert process.stdin is not None
    fd = process.stdin.fileno()
    data = memoryview(json.dumps(request).encode() + b"\n")
    while data:
        _wait(fd, select.POLLOUT, deadline)
        data = data[os.write(fd, data[: select.PIPE_BUF]) :]  # a pipe that polls ready takes PIPE_BUF without blocking


def _read_line(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    assert process.stdout is not None
    fd = process.stdout.fileno()
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        _wait(fd, select.POLLIN, deadline)
        part = os.read(fd, 65536)
        if not part:
            raise EOFError
        parts.append(part)
    return b"".join(parts)
