"""What the coming steps of a stage need, prepared by processes beside the one that trains.

The processes are workers of PyTorch's `DataLoader`. They are forked, so that they begin at once, and read data sets and
plug-ins that the run has opened already. Each prepares whole steps, and a step's preparation depends on its number
alone: how many processes there are, and when one begins, changes nothing.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from configs.errors import UserError
from configs.text import one_line
from rewards.sandbox.worker_process import end_with_parent

T = TypeVar("T")

STEPS_AHEAD = 2  # of each process
_MOST_PROCESSES = 4
_CORES = 4  # of the machine for each process: the others are the learner's and the rollout workers'
_REPLACED = 2  # processes that may die over one step
_LOOK = 5.0  # seconds between two looks for processes that died
_SILENT = "it gave"
DEADLINE = 600.0  # seconds for which a step may be waited for: a process that is silent for longer hangs


class _Steps(Dataset["T | UserError"], Generic[T]):
    """Steps by number. What the user can mend is passed on as a value: PyTorch would put a traceback around it."""

    def __init__(self, prepare: Callable[[int], T]) -> None:
        self._prepare = prepare

    def __getitem__(self, step: int) -> T | UserError:
        try:
            return self._prepare(step)
        except UserError as error:
            return UserError(str(error))


def prefetched(
    prepare: Callable[[int], T],
    steps: range,
    *,
    stage: str,
    say: Callable[[str], object],
    deadline: float = DEADLINE,
) -> Generator[T]:
    """`prepare(step)` for each of `steps`, in order, some steps ahead. Close the iterator to end its processes.

    A process that dies, or is silent for `deadline` seconds, is replaced, and `say` gets a line. Raises the UserErrors
    of `prepare`, and one that names `stage` where that happens again and again over one step; other errors keep their
    traceback.
    """
    step, deaths = steps.start, 0
    while step < steps.stop:
        loading = _begin_loading(prepare, range(step, steps.stop), deadline)
        try:
            for prepared in _before(loading, deadline):
                if isinstance(prepared, UserError):
                    raise prepared
                step, deaths = step + 1, 0
                yield prepared
        except (RuntimeError, OSError, EOFError) as error:
            if not _is_death(error):
                raise
            deaths += 1
            if deaths > _REPLACED:
                raise _unprepared(stage, step + 1, error) from error
            what = "hangs" if _is_hang(error) else "died"
            say(f"{stage}: a process that prepares examples {what} ({one_line(error)}); another one goes on")
        finally:
            _kill(loading)


def _before(loading: Iterator[T], deadline: float) -> Iterator[T]:
    """What `loading` gives. Raises RuntimeError, as PyTorch does, where an item takes longer than `deadline`."""
    while True:
        began = time.monotonic()
        while True:
            try:
                item = next(loading)
                break
            except StopIteration:
                return
            except RuntimeError as error:  # PyTorch looks for dead processes only when it stops waiting
                if not _is_hang(error):
                    raise
                if time.monotonic() - began >= deadline:
                    raise RuntimeError(f"{_SILENT} nothing for {deadline:g} seconds") from error
        yield item


def _kill(loading: Any) -> None:
    """End the processes of a `DataLoader`'s iterator: a stopped one heeds no milder signal."""
    for process in getattr(loading, "_workers", ()):
        if process.is_alive():
            process.kill()


def _begin_loading(prepare: Callable[[int], T], steps: range, deadline: float) -> Iterator[T | UserError]:
    count = _processes(len(steps))
    options = {}
    if count:
        options = {
            "timeout": min(_LOOK, deadline),
            "prefetch_factor": STEPS_AHEAD,
            "multiprocessing_context": "fork",
            "worker_init_fn": partial(_begin, os.getpid()),
        }
    loader = DataLoader(
        _Steps(prepare),
        batch_size=None,
        sampler=steps,
        collate_fn=_as_it_is,
        num_workers=count,
        generator=torch.Generator(),  # it draws a seed, which must not move the run's own generator
        **options,
    )
    handler = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if threading.current_thread() is threading.main_thread():
        # PyTorch's handler raises wherever the main thread is, in the middle of an update, too. `next` raises as well.
        signal.signal(signal.SIGCHLD, handler)
    return iterator


def _is_death(error: Exception) -> bool:
    """Whether a process died: PyTorch found it dead, or was cut off while it took a step over."""
    if isinstance(error, ConnectionError | EOFError | FileNotFoundError):
        return not str(error).startswith("Caught ")  # in a process, while it prepared
    return _is_hang(error) or str(error).startswith("DataLoader worker (pid")


def _is_hang(error: Exception) -> bool:
    """Whether no step came before the deadline."""
    return str(error).startswith(("DataLoader timed out", _SILENT))


def _unprepared(stage: str, step: int, error: Exception) -> UserError:
    if _is_hang(error):
        advice = "See whether a disk or a download hangs (`thinkvl doctor RUN` shows the processes)"
        return UserError(
            f"{stage}: the examples of step {step} cannot be prepared ({one_line(error)}, {_REPLACED + 1} times). "
            f"{advice}. The newest checkpoint is intact: the same command continues the run"
        )
    return UserError(
        f"{stage}: the examples of step {step} cannot be prepared ({one_line(error)}). If the system killed "
        f"the process for its memory, lower {stage}.batch_size, or free memory on this machine. The newest checkpoint "
        "is intact: the same command continues the run"
    )


def _processes(steps: int) -> int:
    """How many processes prepare; none where forking is not safe: then each step is prepared when it is needed."""
    if sys.platform != "linux":
        return 0
    return max(1, min(_MOST_PROCESSES, len(os.sched_getaffinity(0)) // _CORES, steps))


def _begin(parent: int, number: int) -> None:
    """In a new process: end with the run, and leave alone what was inherited from it."""
    del number
    end_with_parent(parent, signal.SIGKILL)
    gc.freeze()  # references to Ray's objects are the run's to count
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the library warns of forks otherwise


def _as_it_is(value: T) -> T:
    return value
