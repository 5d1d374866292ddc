"""The command `thinkvl`, but it kills itself with SIGKILL at a moment that the variable CHAOS names.

`CHAOS` is JSON: `moment` (a key of MOMENTS), `call` (at its n-th call), `delay` (so many seconds after the call began,
while the work goes on), `group` (all of the process group, or the driver alone). `disk` of that many bytes is no kill:
from the n-th checkpoint on, files may not grow beyond it.
"""

import json
import os
import pathlib
import resource
import signal
import sys
import threading
import time

import pyarrow.parquet as pq
import torch

from rewards.scorer import Scorer
from rl.cli.main import main
from rl.learner.learner import Learner
from rl.run.trackers.jsonl_tracker import JsonlTracker
from rollouts.workers.dispatcher import RequestDispatcher
from rollouts.workers.worker_group import WorkerGroup

PLAN = json.loads(os.environ["CHAOS"])


def kill():
    (os.killpg if PLAN["group"] else os.kill)(os.getpgid(0) if PLAN["group"] else os.getpid(), signal.SIGKILL)
    time.sleep(60)  # the signal is on its way


def later():
    time.sleep(PLAN["delay"])
    kill()


def at_nth_call(owner, name, act, caller=""):
    """Before the n-th call of `owner.name` (by code of the file `caller`, where one is given), `act(arguments)`."""
    original, calls = getattr(owner, name), 0

    def wrapped(*args, **kwargs):
        nonlocal calls
        calls += sys._getframe(1).f_code.co_filename.endswith(caller)
        if calls == PLAN["call"]:
            act(*args)
        return original(*args, **kwargs)

    setattr(owner, name, wrapped)


def while_it_works(*_):
    threading.Thread(target=later, daemon=True).start()


def at_once(*_):
    kill()


def half_a_table(table, file, *_):
    file.write(b"PAR1 and not much more")
    file.flush()
    kill()


def half_a_checkpoint(_, file):
    file.write(b"PK, and then nothing")
    file.flush()
    kill()


def half_a_checkpoint_until_the_next_update(_, file):
    """The write stays in the middle of the file until training is in the update after it."""
    file.write(b"PK, and then nothing")
    file.flush()
    PLAN["call"] = 1
    at_nth_call(Learner, "update", while_it_works)
    time.sleep(60)


def half_a_line(sink, stage, step, metrics):
    sink._file.write('{"stage": "rl", "st')
    sink._file.flush()
    kill()


def no_more_room(*_):
    resource.setrlimit(resource.RLIMIT_FSIZE, (PLAN["disk"], resource.RLIM_INFINITY))


MOMENTS = {
    "generation": (RequestDispatcher, "wait_until", while_it_works),
    "scoring": (Scorer, "score", while_it_works),
    "recording": (pq, "write_table", half_a_table),
    "update": (Learner, "update", while_it_works),
    "publish": (WorkerGroup, "publish", while_it_works),
    "metrics": (JsonlTracker, "write", half_a_line),
    "background": (torch, "save", half_a_checkpoint_until_the_next_update),
    "saving": (torch, "save", half_a_checkpoint),
    "saved": (
        os,
        "fsync",
        at_once,
        "rl/checkpoint.py",
    ),  # before and after the rename of a checkpoint, and of the best model's folder
    "best": (pathlib.Path, "rename", at_once),  # the two renames that put the best model's folder in place
    "full disk": (torch, "save", no_more_room),
}

if __name__ == "__main__":
    at_nth_call(*MOMENTS[PLAN["moment"]])
    main()
