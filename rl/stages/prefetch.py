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
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Generic, TypeVar

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


class _Steps(Dataset["T | UserError"], Generic[T]):
    """Steps by number. What the user can mend is passed on as a value: PyTorch would put a traceback around it."""

    def __init__(self, prepare: Callable[[int], T]) -> None:
        self._prepare = prepare

    def __getitem__(self, step: int) -> T | UserError:
        try:
            return self._prepare(step)
        except UserError as error:
            return UserError(str(error))


def prefetched(prepare: Callable[[int], T], steps: range, *, stage: str, say: Callable[[str], object]) -> Generator[T]:
    """`prepare(step)` for each of `steps`, in order, some steps ahead. Close the iterator to end its processes.

    A process that dies is replaced, and `say` gets a line. Raises the UserErrors of `prepare`, and one that names
    `stage` where processes die again and again over one step; other errors keep their traceback.
    """
    step, deaths = steps.start, 0
    while step < steps.stop:
        try:
            for prepared in _begin_loading(prepare, range(step, steps.stop)):
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
            say(f"{stage}: a process that prepares examples died ({one_line(error)}); another one goes on")


def _begin_loading(prepare: Callable[[int], T], steps: range) -> Iterator[T | UserError]:
    count = _processes(len(steps))
    options = {}
    if count:
        options = {
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
    return str(error).startswith("DataLoader worker (pid")


def _unprepared(stage: str, step: int, error: Exception) -> UserError:
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
