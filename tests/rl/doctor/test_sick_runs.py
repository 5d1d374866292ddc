"""Runs that are dead or stuck: real processes in real folders, killed, stopped, out of memory or of disk."""

import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest

from rl.checkpoint import save_checkpoint
from rl.cli.doctor import doctor_command
from rl.doctor import run_checks, stacks
from rl.doctor.run_facts import read_run
from rl.doctor.table import check_run
from rl.run.console import PlainConsole

RECIPE = """
name: sick
output_dir: {folder}
data: {{train: [{{use: digit_sums, options: {{scans: [2]}}}}]}}
stages: [{{kind: rl, steps: 9, prompts_per_step: 2, samples_per_prompt: 2}}]
"""
DRIVER = """
import sys, time
from pathlib import Path
from rl.run.end_record import noted_end
from rl.run.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
with folder.lock(), noted_end(folder.path):
    print("ready", flush=True)
    {body}
"""
VERIFIER = """
import time
def slow(response, reference, *, task):
    time.sleep(600)
"""
SCORING = """
    from configs.rewards import RewardConfig
    from rewards.scorer import Scorer
    from rewards.types import Task
    with Scorer([RewardConfig(use="slow.py:slow", seconds=600.0)], base=folder.path) as scorer:
        scorer.score(["1"], [Task(id="a", source="s", question="q", answer="1")])
"""


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "recipe.yaml").write_text(RECIPE.format(folder=path))
    return path


@pytest.fixture
def drive(folder):
    """`drive(body)` starts a process that holds the run's folder as `thinkvl run` does."""
    started = []

    def start(body, where=folder, **options):
        command = [sys.executable, "-c", DRIVER.format(body=body.strip()), str(where)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        process = subprocess.Popen(command, start_new_session=True, **pipes, **options)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def findings(folder):
    return {one.name: one.finding for one in check_run(read_run(str(folder)))}


def silent(folder, seconds=3600.0):
    """As if nothing had been written for so long."""
    then = time.time() - seconds
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


def test_a_run_that_was_killed(folder, drive):
    process = drive("time.sleep(600)")
    assert findings(folder)["process"].value.startswith(f"process {process.pid} runs in stage rl")
    process.kill()
    process.wait()
    found = findings(folder)["process"]
    assert found.level == "fault"
    assert f"process {process.pid}" in found.value
    assert "was killed" in found.value
    assert "same command" in found.fix


def test_a_stage_whose_loss_is_not_finite(folder):
    rows = [{"stage": "rl", "step": 1, "loss": 1.0}, {"stage": "rl", "step": 2, "loss": None}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = findings(folder)["training"]
    assert (found.level, found.value) == (
        "warning",
        "alarm in step 2: an update was skipped, or a number is not finite",
    )
    (folder / "metrics.jsonl").write_text(json.dumps(rows[0]) + "\n")
    assert findings(folder)["training"].level == "ok"


def test_a_run_that_was_stopped_by_the_user(folder, drive):
    process = drive("time.sleep(600)")
    process.send_signal(signal.SIGINT)
    process.wait()
    assert findings(folder)["process"].level == "warning"
    assert "Ctrl-C" in findings(folder)["process"].value


def test_a_run_out_of_memory(folder, drive):
    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))

    drive("bytearray(64 << 30)", preexec_fn=limited).wait()
    found = findings(folder)["process"]
    assert found.level == "fault"
    assert found.value.startswith("the main memory was too small: MemoryError")


def test_a_disk_that_ran_full_is_noted_all_the_same(folder, drive, small_disk):
    place = small_disk(1) / "run"
    shutil.copytree(folder, place)
    if place.stat().st_dev == folder.stat().st_dev:
        pytest.skip("no disk can be mounted here")
    drive('[(folder.path / f"{i}").write_bytes(bytes(100_000)) for i in range(20)]', where=place).wait()
    found = findings(place)
    assert found["process"].value.startswith("the disk is full: OSError")
    assert found["disk"].level == "fault"


def test_a_run_stuck_in_a_verifier(folder, drive):
    (folder / "slow.py").write_text(VERIFIER)
    process = drive(SCORING)
    deadline = time.monotonic() + 60
    while "scorer" not in stacks.dump(process.pid)[0] and time.monotonic() < deadline:
        assert process.poll() is None, "the verifier does not load"
        time.sleep(0.5)
    if not stacks.dump(process.pid)[1]:
        pytest.skip("py-spy may not look into processes here")
    silent(folder)
    while "a verifier" not in (found := findings(folder))["waits"].value and time.monotonic() < deadline:
        time.sleep(0.5)  # it still imports the scorer
    assert found["progress"].level == "fault"
    assert found["waits"].level == "fault"
    assert "a verifier or reward function" in found["waits"].value
    output = io.StringIO()
    console = PlainConsole(file=output, width=200)
    assert doctor_command(str(folder), (), push=False, as_json=False, console=console) == 1
    output = output.getvalue()
    assert "likely cause: " in output
    assert "scorer.py" in output, "stacks of the driver"
    assert "slow.py" in output, "and of the process that runs the verifier"


def test_a_worker_that_is_stopped(folder, drive):
    drive("import subprocess; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])")
    deadline = time.monotonic() + 30
    while len(read_run(str(folder)).processes) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    worker = read_run(str(folder)).processes[1].pid
    os.kill(worker, signal.SIGSTOP)
    while findings(folder)["stopped processes"].level == "ok" and time.monotonic() < deadline:
        time.sleep(0.1)
    found = findings(folder)["stopped processes"]
    assert found.level == "fault"
    assert f"(process {worker}) is stopped" in found.value
    assert found.fix == f"kill -CONT {worker}"


def test_a_run_that_moves_has_no_fault(folder, drive):
    drive("time.sleep(600)")
    assert not {name for name, found in findings(folder).items() if found.level == "fault"}


def test_a_corrupt_checkpoint(folder):
    checkpoints = folder / "rl" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for step in (1, 2):
        save_checkpoint(checkpoints, step, {"weights": list(range(1000))})
    assert findings(folder)["checkpoints"].value == "2 in stage rl"
    newest = checkpoints / "step-000002.pt"
    newest.write_bytes(newest.read_bytes()[:-200])
    assert findings(folder)["checkpoints"].level == "warning"
    assert "step-000002.pt" in findings(folder)["checkpoints"].value
    older = checkpoints / "step-000001.pt"
    data = bytearray(older.read_bytes())
    data[len(data) // 2] ^= 0xFF
    older.write_bytes(data)
    assert findings(folder)["checkpoints"].level == "fault"


def test_a_worker_that_was_killed_for_its_memory(folder):
    (folder / "failures").mkdir()
    text = "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.\n"
    (folder / "failures" / "001-worker-0-death.txt").write_text(text)
    found = findings(folder)
    assert found["killed for memory"].level == "fault"
    assert "1 failed, the last: ray.exceptions.OutOfMemoryError" in found["workers"].value


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "the memory of a GPU was too small"),
        ("CheckpointError: no checkpoint in runs/a can be read:", "a file of the run is damaged"),
        ("WorkerError: Ray cannot start on this machine", "Ray did not start, or ended"),
        ("WorkerError: worker 0 fails on 4 requests, and no task is to blame", "a rollout worker failed"),
        ("ValueError: something else", None),
    ],
)
def test_an_error_has_a_cause(error, cause):
    found = run_checks.cause_of(error)
    assert (found.cause if found else None) == cause


def test_without_py_spy_a_sentence_says_so(folder, drive, monkeypatch):
    drive("time.sleep(600)")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(stacks.sys, "executable", "/nowhere/python")
    found = findings(folder)["waits"]
    assert found.level == "warning"
    assert "pip install py-spy" in found.value


def test_where_py_spy_may_not_look_a_sentence_says_so(tmp_path, monkeypatch):
    tool = tmp_path / "py-spy"
    tool.write_text("#!/bin/sh\necho 'Permission Denied: Try running again with elevated permissions' >&2; exit 1\n")
    tool.chmod(0o755)
    monkeypatch.setattr(stacks.sys, "executable", str(tmp_path / "python"))
    text, found = stacks.dump(os.getpid())
    assert not found
    assert "SYS_PTRACE" in text


def test_a_damaged_record_of_the_end_is_none(folder):
    for data in (b"", b"[]", b"{" * 10_000, b'{"state": "flying"}', bytes(range(256))):
        (folder / "end.json").write_bytes(data)
        assert "no command runs" in findings(folder)["process"].value
