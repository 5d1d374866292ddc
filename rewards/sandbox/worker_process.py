"""What a worker process does: put itself under limits, answer one request after the other, end when it has swollen.

Runs in the process that `rewards.sandbox.fork_server` forked; the owner uses `WorkerClass` and the frame functions.
A worker's module has `answer(request) -> response` on JSON values. It may have `warm_up()`, which the fork_server calls
once before it forks, and `open(options)`, which each worker calls before it is ready.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import logging
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

_HEADER = struct.Struct("!I")  # a frame is its length and so many bytes of JSON
_PDEATHSIG, _SUBREAPER, _NO_NEW_PRIVS = 1, 36, 38  # of Linux's prctl


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerClass:
    """What the workers of one pool run and may use. JSON values only: it travels on a command line."""

    module: str
    options: Mapping[str, Any] = field(default_factory=dict)  # for the module's `open`
    memory_bytes: int = 2 << 30  # of address space
    file_bytes: int = 0  # the largest file that it may write
    open_files: int = 64
    recursion: int = 1000  # Python frames
    environment: tuple[str, ...] = ()  # names of variables that it gets beside the few that every process needs
    folder: str = "/"  # working directory


def end_with_parent(parent: int, signum: int) -> None:
    """Let the kernel send `signum` when the thread that started this process ends, on Linux. Ends at once if it has."""
    _prctl(_PDEATHSIG, signum)
    if os.getppid() != parent:
        os._exit(0)


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends, on Linux, so that none escapes its end."""
    _prctl(_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def frame(message: object) -> bytes:
    """`message` as it goes over a socket. Surrogates that no UTF-8 has are escaped by JSON."""
    data = json.dumps(message).encode("ascii")
    return _HEADER.pack(len(data)) + data


def unframe(buffer: bytearray, most: int) -> Any | None:
    """Take one message off the front of `buffer`; None where it is not complete yet. ValueError where it is garbage."""
    if len(buffer) < _HEADER.size:
        return None
    (size,) = _HEADER.unpack_from(buffer)
    if size > most:
        raise ValueError(f"a message of {size} bytes")
    end = _HEADER.size + size
    if len(buffer) < end:
        return None
    message = json.loads(bytes(buffer[_HEADER.size : end]))
    del buffer[:end]
    return message


def serve(channel: socket.socket, module: ModuleType, kind: WorkerClass) -> None:
    """Say that this process is ready, then answer requests until the owner hangs up. Never returns in a fork of it."""
    own = os.getpid()
    # A child that the module forks must not hold the channel: the owner would not see this process end.
    os.register_at_fork(after_in_child=channel.close)
    logging.disable(logging.CRITICAL)
    _limit(kind)
    try:
        if hasattr(module, "open"):
            module.open(dict(kind.options))
    except BaseException as error:  # a stranger's import may even call sys.exit
        channel.sendall(frame({"failed": describe_error(error)}))
        return
    channel.sendall(frame({"ready": own}))
    gc.freeze()
    fresh = _usage()
    with channel.makefile("rb") as incoming:
        while len(header := incoming.read(_HEADER.size)) == _HEADER.size:
            request = json.loads(incoming.read(_HEADER.unpack(header)[0]))
            _limit_cpu(float(request.pop("cpu_seconds")))
            try:
                reply = {"answer": module.answer(request)}
            except BaseException as error:
                reply = {"error": describe_error(error)}
            if os.getpid() != own:
                os._exit(0)  # a fork that the module forgot to end must not answer a second time
            signal.setitimer(signal.ITIMER_PROF, 0)
            ends = "error" in reply or _has_grown(kind, fresh)
            channel.sendall(_reply(reply, ends))
            if ends:
                return


def _reply(reply: dict[str, Any], ends: bool) -> bytes:
    try:
        return frame({**reply, "ends": ends})
    except (TypeError, ValueError) as error:  # not JSON
        return frame({"error": describe_error(error), "ends": ends})


def describe_error(error: BaseException) -> str:
    """An exception in a line, whatever its author made of its text."""
    if isinstance(error, MemoryError):
        return "MemoryError: out of memory"
    with contextlib.suppress(Exception):  # str() runs code of the error's author
        return f"{type(error).__name__}: {error}"[:2000]
    return type(error).__name__


def _limit(kind: WorkerClass) -> None:
    _prctl(_NO_NEW_PRIVS, 1)  # no program that it starts gains privileges (setuid)
    sys.setrecursionlimit(kind.recursion)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    limits = (
        (resource.RLIMIT_AS, kind.memory_bytes),
        (resource.RLIMIT_FSIZE, kind.file_bytes),
        (resource.RLIMIT_NOFILE, kind.open_files),
        (resource.RLIMIT_CORE, 0),
    )
    for name, value in limits:
        with contextlib.suppress(ValueError, OSError):  # the limit of the caller's own may be lower
            resource.setrlimit(name, (value, value))


def _limit_cpu(seconds: float) -> None:
    """The kernel ends this process after so much CPU time, even in a C loop that returns to no signal handler."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    used = resource.getrusage(resource.RUSAGE_SELF)
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime + seconds) + 2, hard))


def _usage() -> tuple[int, int]:
    """Bytes of address space and open files; zeros where the system does not tell."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return pages * resource.getpagesize(), len(list(Path("/proc/self/fd").iterdir()))
    return 0, 0


def _has_grown(kind: WorkerClass, fresh: tuple[int, int]) -> bool:
    """True where half of what was free at the start is in use between requests: a leak, or a cache that grew."""
    limits = (kind.memory_bytes, kind.open_files)
    return any(2 * (now - then) > most - then for now, then, most in zip(_usage(), fresh, limits, strict=True))
