"""Is a worker alive? Its heartbeat while it works, and a diagnosis with stacks where it has none."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from rollouts.types import Request
from rollouts.workers.actor import Address

_REPLY_SECONDS = 3.0  # for a worker that hangs: to return its stacks, or to write them


class Watch:
    """Follows the heartbeat of one actor while it holds work.

    `silent_for` grows while the actor neither replies nor makes progress.
    """

    def __init__(self, actor: Any) -> None:
        self._actor, self._pending = actor, None
        self._count, self.began = -1, time.monotonic()
        self._last = self.began

    def look(self) -> None:
        """Request the heartbeat, or read the reply to the last request if it is there."""
        if self._pending is None:
            self._pending = self._actor.heartbeat.remote()
        ready, _ = ray.wait([self._pending], timeout=0)
        if not ready:
            return
        with contextlib.suppress(RayError):  # the call that generates reports a dead actor
            count = ray.get(self._pending)
            if count != self._count:
                self._count, self._last = count, time.monotonic()
        self._pending = None

    @property
    def silent_for(self) -> float:
        """Seconds since the last sign of progress."""
        return time.monotonic() - self._last


def diagnose(slot: int, address: Address, actor: Any, watch: Watch, requests: Sequence[Request]) -> str:
    """Who waits for whom since when, the state of the process, and its stacks, as text."""
    tasks = ", ".join(r.prompt.task.id for r in requests[:8]) + (", ..." if len(requests) > 8 else "")
    here = address.node == ray.get_runtime_context().get_node_id()
    return (
        f"worker {slot} (process {address.pid}, node {address.node[:8]}) has made no progress for "
        f"{watch.silent_for:.0f} s; the run has waited {time.monotonic() - watch.began:.0f} s for its completions "
        f"of {len(requests)} requests: {tasks}\n"
        f"process state: {_state(address.pid) if here else 'unknown (another node)'}\n"
        f"{_stacks(address, actor, here)}"
    )


def _stacks(address: Address, actor: Any, here: bool) -> str:
    """From the actor itself; where it does not reply, from py-spy; where that is not allowed, from faulthandler."""
    try:
        return f"stacks, from the worker:\n{ray.get(actor.stacks.remote(), timeout=_REPLY_SECONDS)}"
    except (RayError, TimeoutError):
        if not here:
            return "no stacks: the worker does not reply"
    return _py_spy(address.pid) or _faulthandler(address) or "no stacks: neither py-spy nor the worker gives any"


def _py_spy(pid: int) -> str | None:
    tool = shutil.which("py-spy", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if tool is None:
        return None
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run([tool, "dump", "--pid", str(pid)], capture_output=True, text=True, timeout=20)
        if done.returncode == 0:
            return f"stacks, from py-spy:\n{done.stdout}"
    return None


def _faulthandler(address: Address) -> str | None:
    """The worker's handler of SIGUSR1 is in C and needs no lock of Python's."""
    with contextlib.suppress(OSError):
        os.kill(address.pid, signal.SIGUSR1)
        time.sleep(_REPLY_SECONDS)
        if text := address.stacks.read_text(encoding="utf-8"):
            return f"stacks, from faulthandler:\n{text}"
    return None


def _state(pid: int) -> str:
    """As the kernel says it: `S (sleeping)`, `T (stopped)`, ..."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("State:"):
                return line.removeprefix("State:").strip()
    return "gone"
