"""Steps prepared in processes of their own: the same ones, only the next few, and nothing is left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from configs.errors import UserError
from rl.stages import prefetch
from rl.stages.prefetch import STEPS_AHEAD, prefetched

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere steps are prepared in the run's own process")


def squares(step):
    return step * step, np.full(1000, step)


@pytest.mark.parametrize("cores", [1, 12, 64])
def test_steps_come_in_order_on_any_number_of_processes(monkeypatch, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    found = list(prefetched(squares, range(5, 25), stage="sft", say=print))
    assert [number for number, _ in found] == [step * step for step in range(5, 25)]
    assert all((array == step).all() for step, (_, array) in enumerate(found, 5))
    assert torch.equal(torch.rand(1), expected), "the run's own generator has not moved"
    assert list(prefetched(squares, range(3, 3), stage="sft", say=print)) == []


def test_where_forking_is_not_safe_each_step_is_prepared_when_it_is_needed(monkeypatch):
    monkeypatch.setattr(prefetch.sys, "platform", "darwin")
    assert list(prefetched(lambda step: (step, os.getpid()), range(3), stage="sft", say=print)) == [
        (step, os.getpid()) for step in range(3)
    ]


@linux
def test_only_the_next_steps_are_prepared_and_elsewhere():
    begun = multiprocessing.Value("i", 0)
    before = {child.pid for child in multiprocessing.active_children()}

    def prepare(step):
        begun.value = max(begun.value, step + 1)
        return os.getpid()

    with closing(prefetched(prepare, range(1000), stage="sft", say=print)) as steps:
        for taken in range(1, 6):
            assert next(steps) != os.getpid()
            time.sleep(0.2)
            assert begun.value <= taken + STEPS_AHEAD
    assert {child.pid for child in multiprocessing.active_children()} <= before, "closing ends the process"


def test_an_error_of_the_user_arrives_as_it_was_raised():
    def prepare(step):
        if step == 2:
            raise UserError("rows.jsonl: row 7 has gone; put it back")
        return step

    steps = prefetched(prepare, range(5), stage="sft", say=print)
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(UserError, match=r"^rows\.jsonl: row 7 has gone; put it back$"):
        next(steps)


def test_a_fault_in_our_code_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match=r"(?s)division by zero|in prepare"):
        list(prefetched(lambda step: 1 / step, range(3), stage="sft", say=print))


@linux
def test_a_killed_process_is_replaced_and_no_step_is_lost():
    before = {child.pid for child in multiprocessing.active_children()}  # of other tests in this process
    said = []
    with closing(prefetched(squares, range(60), stage="sft", say=said.append)) as steps:
        found = [next(steps)]
        [child] = {child.pid for child in multiprocessing.active_children()} - before
        os.kill(child, signal.SIGKILL)
        found += steps
    assert [number for number, _ in found] == [step * step for step in range(60)]
    [line] = said
    assert line.startswith("sft: a process that prepares examples died (")
    assert {child.pid for child in multiprocessing.active_children()} <= before


@linux
def test_a_stopped_process_is_replaced_after_the_deadline():
    """It holds its pipe open and answers nothing, so PyTorch alone would wait for ever."""
    before = {child.pid for child in multiprocessing.active_children()}
    said = []
    with closing(prefetched(squares, range(20), stage="sft", say=said.append, deadline=1.0)) as steps:
        found = [next(steps)]
        [child] = {child.pid for child in multiprocessing.active_children()} - before
        os.kill(child, signal.SIGSTOP)
        found += steps
    assert [number for number, _ in found] == [step * step for step in range(20)]
    [line] = said
    assert line.startswith("sft: a process that prepares examples hangs (it gave nothing for 1 seconds")
    assert {child.pid for child in multiprocessing.active_children()} <= before, "also the stopped one"


@linux
def test_a_step_that_hangs_each_process_ends_the_stage_with_what_to_do():
    steps = prefetched(lambda step: time.sleep(60), range(5), stage="sft", say=print, deadline=0.3)
    with pytest.raises(UserError, match=r"^sft: the examples of step 1 cannot be prepared .*3 times.*a disk or a down"):
        next(steps)


@linux
def test_a_step_that_kills_each_process_ends_the_stage_with_what_to_do():
    def prepare(step):
        if step == 2:
            time.sleep(1)  # the steps before it are on their way
            os.kill(os.getpid(), signal.SIGKILL)
        return step

    steps = prefetched(prepare, range(5), stage="sft", say=print)
    assert [next(steps), next(steps)] == [0, 1]
    with pytest.raises(
        UserError, match=r"^sft: the examples of step 3 cannot be prepared .*lower sft.batch_size.*same co"
    ):
        next(steps)


SCRIPT = """
import multiprocessing, sys, time
import numpy as np
from rl.stages.prefetch import prefetched

steps = prefetched(lambda step: np.zeros(1 << 22), range(100_000), stage="sft", say=print)
next(steps)
print(multiprocessing.active_children()[0].pid, flush=True)
time.sleep(100)
"""


@linux
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_no_process_outlives_the_run(signum):
    """Also not one that waits to hand over a step: what it holds open would lock the run's folder."""
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0
    )
    assert run.stdout is not None
    child = Path(f"/proc/{int(run.stdout.readline())}/stat")
    (os.kill if signum == signal.SIGKILL else os.killpg)(run.pid, signum)
    _, errors = run.communicate(timeout=60)
    assert run.returncode == -signum
    assert errors.count("Traceback") <= 1, "of the run alone"
    deadline = time.monotonic() + 10
    while child.exists() and child.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not child.exists() or child.read_text().split()[2] == "Z"
