"""The fork server: it has the imports done and forks the workers, so a killed worker is replaced in milliseconds.

It runs one thread and no request, so it always listens. When its owner is gone it kills all of its descendants, also
those that left their process group. It notices in two ways: the control socket ends, and the kernel sends SIGCONT
when the thread that started it ends. The owner may live on after that thread, so the parent's process id decides.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from rewards.sandbox.worker_process import WorkerClass, adopt_orphans, describe_error, end_with_parent, serve

MESSAGE = struct.Struct("!cQq")  # kind, worker, value
SPAWN, KILL = b"S", b"K"  # from the owner; SPAWN carries the worker's socket
READY, FAILED, ENDED = b"R", b"F", b"E"  # to the owner; FAILED: so many bytes of text follow; ENDED: exit status

_POLL_SECONDS = 5.0


def main(settings: dict[str, Any]) -> NoReturn:
    """Import the module, then fork and kill workers as the owner says."""
    owner = int(settings["owner"])
    control = socket.socket(fileno=int(settings["control"]))
    woken, wake = socket.socketpair()
    for end in (woken, wake):
        end.setblocking(False)
    for signum in (signal.SIGTERM, signal.SIGCHLD, signal.SIGCONT):
        signal.signal(signum, lambda *_: None)
    signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
    end_with_parent(owner, signal.SIGCONT)  # also wakes this process where it was stopped
    adopt_orphans()
    kind = WorkerClass(**settings["kind"])
    try:
        module = importlib.import_module(kind.module)
        if hasattr(module, "warm_up"):
            module.warm_up()
    except BaseException as error:  # whatever an import raises, the owner is to hear of it
        text = describe_error(error).encode()
        control.sendall(MESSAGE.pack(FAILED, 0, len(text)) + text)
        os._exit(1)
    gc.collect()
    gc.freeze()  # what exists now is never looked at again, so its memory stays shared
    control.sendall(MESSAGE.pack(READY, 0, 0))
    _ForkServer(control, woken, wake, module, kind, owner).run()
    os._exit(0)


class _ForkServer:
    def __init__(
        self,
        control: socket.socket,
        woken: socket.socket,
        wake: socket.socket,
        module: ModuleType,
        kind: WorkerClass,
        owner: int,
    ) -> None:
        self._control, self._woken, self._wake = control, woken, wake
        self._module, self._kind, self._owner = module, kind, owner
        self._workers: dict[int, int] = {}  # process id -> the owner's number

    def run(self) -> None:
        """Until the owner is gone."""
        with contextlib.suppress(OSError):
            while os.getppid() == self._owner:
                readable, _, _ = select.select([self._control, self._woken], [], [], _POLL_SECONDS)
                if self._woken in readable:
                    with contextlib.suppress(BlockingIOError):
                        self._woken.recv(4096)
                if self._control in readable and not self._obey():
                    break
                self._reap()
        for pid in list(self._workers):
            _kill_group(pid)
        while _kill_all(_children()):
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, 0)

    def _obey(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._control, MESSAGE.size, 1)
        while data and len(data) < MESSAGE.size:
            data += self._control.recv(MESSAGE.size - len(data))
        if not data:
            return False
        command, number, _ = MESSAGE.unpack(data)
        if command == SPAWN:
            self._spawn(number, fds[0])
        elif command == KILL:
            for pid, known in self._workers.items():
                if known == number:
                    _kill_group(pid)
        return True

    def _spawn(self, number: int, fd: int) -> None:
        fork_server = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(fork_server, fd)
        with contextlib.suppress(OSError):  # both sides do it, so that the group is there whoever is first
            os.setpgid(pid, pid)
        os.close(fd)
        self._workers[pid] = number

    def _become_worker(self, fork_server: int, fd: int) -> NoReturn:
        try:
            end_with_parent(fork_server, signal.SIGKILL)
            os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            for signum in (signal.SIGTERM, signal.SIGCHLD, signal.SIGCONT):
                signal.signal(signum, signal.SIG_DFL)
            for end in (self._control, self._woken, self._wake):
                end.close()
            serve(socket.socket(fileno=fd), self._module, self._kind)
        finally:
            os._exit(0)

    def _reap(self) -> None:
        for pid in _ended():
            _kill_group(pid)  # before it is reaped: until then its number cannot belong to another
            with contextlib.suppress(ChildProcessError):
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                if pid in self._workers:
                    _kill_all(_children() - self._workers.keys())
                    self._control.sendall(MESSAGE.pack(ENDED, self._workers.pop(pid), status))


def _ended() -> Iterator[int]:
    """Children that have ended and are not reaped."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            yield found.si_pid


def _children() -> set[int]:
    """Every child of this process, adopted ones too; empty where the system does not tell."""
    with contextlib.suppress(OSError):
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}
    return set()


def _kill_all(pids: set[int]) -> bool:
    for pid in pids:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return bool(pids)


def _kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit("this module is started by rewards.sandbox.pool")
