"""Watches the raylet of a private Ray: without it nothing can be generated, and Ray itself dumps its log or waits."""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from subprocess import Popen

import ray
from ray._private import worker as ray_worker

STOPPED_SECONDS = 60.0  # that a raylet may be stopped (SIGSTOP); the driver would wait for it forever
_POLL_SECONDS = 0.1
_OWN_END = (0, -signal.SIGTERM, -signal.SIGINT)  # exit codes of a raylet that was told to end


def watch_raylet() -> None:
    """End this process with an error and exit code 1 once the raylet that it started is killed or stopped.

    The other threads may be in calls of Ray that never return. Nothing is lost: files are written in whole or not at
    all, and a run resumes from its newest checkpoint.
    """
    node = ray_worker.global_worker.node
    for info in node.all_processes.get("raylet", []) if node is not None else []:
        threading.Thread(target=_watch, args=(info.process,), name="raylet-watch", daemon=True).start()


def _watch(raylet: Popen[bytes]) -> None:
    stopped_since, ended = None, _end_of(raylet.pid)
    while ray.is_initialized():
        select.select([ended] if ended is not None else [], [], [], _POLL_SECONDS)
        code = raylet.poll()
        if code is not None:
            if code not in _OWN_END and ray.is_initialized():
                _end(f"was killed ({_signal_name(code)})")
            return
        stopped_since = (stopped_since or time.monotonic()) if _is_stopped(raylet.pid) else None
        if stopped_since is not None and time.monotonic() - stopped_since > STOPPED_SECONDS:
            _end(f"(process {raylet.pid}) has been stopped for {STOPPED_SECONDS:.0f} s")


def _end_of(pid: int) -> int | None:
    """A file descriptor that can be read once the process has ended; None where the system has no such thing.

    With it our line comes before the agents of Ray notice, who have the driver print the raylet's log.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def _end(what: str) -> None:
    text = f"error: Ray's process on this machine, the raylet, {what}; the same command continues the run"
    sys.stdout.flush()
    print(text, file=sys.stderr, flush=True)
    os._exit(1)


def _is_stopped(pid: int) -> bool:
    """Whether the process is in the state T, as far as this system tells."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False


def _signal_name(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"
