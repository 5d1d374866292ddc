"""Killed with SIGKILL at moments all over a run and started again: the end is that of the undisturbed run, to the bit.

A chain kills one run several times, at a moment of `chaos_driver.py` each, and lets it end. The moments are drawn from
a fixed seed; a kill that does not happen fails the test.
"""

import contextlib
import json
import os
import random
import signal
import time
import uuid
from pathlib import Path

import pytest
import torch

from rl.run.trackers.jsonl_tracker import read_metrics

DRIVER = Path(__file__).with_name("chaos_driver.py")
PARTIAL = "rl.partial={budget: 4, max_segments: 3, mask_age: 2}"
LONGER = "rl.steps=10"  # so that the kills of a chain are over before the run is
# Of each moment the last call at which it comes in the first three steps of a process, and how often it is drawn.
DRAWN = {
    "generation": (3, 4),
    "scoring": (3, 3),
    "recording": (3, 2),
    "update": (3, 4),
    "publish": (4, 2),
    "metrics": (3, 1),
    "saving": (1, 2),
    "saved": (2, 2),
}
CHAIN = 4


def draw(seed):
    """Twenty moments in chains of four."""
    rng = random.Random(seed)
    moments = [
        {"moment": name, "call": rng.randint(1, last), "delay": rng.uniform(0, 0.3), "group": rng.random() < 0.5}
        for name, (last, times) in DRAWN.items()
        for _ in range(times)
    ]
    rng.shuffle(moments)
    return [moments[i : i + CHAIN] for i in range(0, len(moments), CHAIN)]


def processes_of(mark):
    """{process: its name} where the environment holds the mark: the run, its Ray and its workers."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark.encode() in path.read_bytes():
                name = path.with_name("cmdline").read_bytes().replace(b"\0", b" ").strip()
                found[int(path.parent.name)] = name.decode(errors="replace")[:80]
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


def is_agent(name):
    """Ray's two agents outlive their Ray by two minutes, in which they try to report its death to it."""
    return name.startswith(("ray::DashboardAgent", "ray::RuntimeEnvAgent"))


def kill_at(mini, **plan):
    """Start the run, see it die at that moment, wait until nothing of it is left; what it printed."""
    mark = uuid.uuid4().hex
    process = mini.start([str(DRIVER)], CHAOS=json.dumps(plan), MARK=mark)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == -signal.SIGKILL, f"{plan} did not happen:\n{output}"
    deadline = time.monotonic() + 60
    while not all(map(is_agent, processes_of(mark).values())) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = processes_of(mark)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    orphans = [name for name in left.values() if name and not is_agent(name)]
    assert not orphans, f"{plan}: {orphans} outlived the run"
    return output


def end_of(mini):
    """Everything that must be the same, as bytes and numbers."""
    rl = mini.run_folder / "rl"
    state = mini.learner()
    rows = read_metrics(mini.run_folder / "metrics.jsonl")
    clock = (
        "time",
        "seconds/",
        "workers/",
        "idle/",
        "memory/",
        "tokens_per_second/",
        "tflops/",
        "publish_gb",
        "cache/",
    )
    return {
        "files": {
            str(path.relative_to(rl)): path.read_bytes()
            for folder in ("model", "best", "rollouts", "success.json")
            for path in sorted([rl / folder] if (rl / folder).is_file() else (rl / folder).rglob("*"))
            if path.is_file()
        },
        "learner": flat(state),
        "metrics": [{k: v for k, v in row.items() if not k.startswith(clock)} for row in rows],
    }


def flat(state):
    if isinstance(state, torch.Tensor):
        return state.tolist()
    if isinstance(state, dict):
        return {key: flat(value) for key, value in state.items()}
    return [flat(value) for value in state] if isinstance(state, list | tuple) else state


def differences(a, b):
    """Where two ends differ, in a few words."""
    files = [name for name in a["files"].keys() | b["files"].keys() if a["files"].get(name) != b["files"].get(name)]
    rows = [
        (x["stage"], x["step"], sorted(k for k in x.keys() | y.keys() if x.get(k) != y.get(k)))
        for x, y in zip(a["metrics"], b["metrics"], strict=False)
        if x != y
    ]
    lengths = [len(a["metrics"]), len(b["metrics"])]
    return files, rows, [] if lengths[0] == lengths[1] else lengths, [] if a["learner"] == b["learner"] else ["learner"]


NONE = ([], [], [], [])


@pytest.mark.chaos  # a minute and a half
@pytest.mark.timeout(900)
def test_three_kills_and_a_damaged_checkpoint_leave_no_trace(whole_run, make_mini):
    """In generation, in an update while a checkpoint is written, in an update; then the newest one is cut short."""
    undisturbed, _ = whole_run
    mini = make_mini()
    mini.begin_before_rl(undisturbed)
    rng = random.Random(5)
    kill_at(mini, moment="generation", call=3, delay=rng.uniform(0, 0.1), group=False)  # in step 3
    output = kill_at(mini, moment="background", call=1, delay=0, group=True)  # in step 5, with half of step 4 saved
    assert (mini.run_folder / "rl" / "checkpoints" / "step-000004.pt.partial").exists()
    assert "resuming rl after step 2" in output
    output = kill_at(mini, moment="update", call=4, delay=rng.uniform(0, 0.1), group=False)  # of step 6
    assert "resuming rl after step 2" in output
    newest = mini.run_folder / "rl" / "checkpoints" / "step-000004.pt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    printed = mini.here()
    assert "step-000004.pt cannot be read" in printed
    assert "trying the one before" in printed
    assert "resuming rl after step 2" in printed
    assert differences(end_of(mini), end_of(undisturbed)) == NONE


@pytest.fixture(scope="module")
def longer_run(tmp_path_factory, whole_run):
    """The longer recipe, undisturbed; made once for each set of overrides."""
    made = {}

    def run(*overrides):
        if overrides not in made:
            mini = type(whole_run[0])(tmp_path_factory.mktemp("longer"), [LONGER, *overrides])
            mini.begin_before_rl(whole_run[0])
            mini.here()
            made[overrides] = end_of(mini)
            rows = read_metrics(mini.run_folder / "metrics.jsonl", stage="rl")
            if overrides:
                assert any(row["partial/pending"] for row in rows), "nothing is ever pending, so the test shows nothing"
                assert any(row.get("masked_share") for row in rows), "nothing is ever masked"
        return made[overrides]

    return run


@pytest.mark.chaos
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("moments", "overrides"),
    [*((chain, ()) for chain in draw(11)), *((chain, (PARTIAL,)) for chain in draw(12)[:2])],
    ids=lambda value: ",".join(f"{m['moment']}-{m['call']}" if isinstance(m, dict) else "partial" for m in value),
)
def test_a_chain_of_kills_leaves_no_trace(whole_run, longer_run, make_mini, moments, overrides):
    expected = longer_run(*overrides)
    mini = make_mini(LONGER, *overrides)
    mini.begin_before_rl(whole_run[0])
    for moment in moments:
        kill_at(mini, **moment)
    saved = any((mini.run_folder / "rl" / "checkpoints").glob("*.pt"))  # all kills may come before the first
    assert ("resuming rl after step" in mini.here()) == saved
    assert differences(end_of(mini), expected) == NONE


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_a_disk_that_is_full_while_saving_ends_the_run_and_nothing_else(whole_run, make_mini):
    """The second checkpoint finds room for half of itself: the system refuses the rest (RLIMIT_FSIZE)."""
    undisturbed, _ = whole_run
    mini = make_mini()
    mini.begin_before_rl(undisturbed)
    [size] = {p.stat().st_size for p in (undisturbed.run_folder / "rl" / "checkpoints").glob("step-000004.pt")}
    plan = {"moment": "full disk", "call": 2, "disk": size // 2}
    process = mini.start([str(DRIVER)], CHAOS=json.dumps(plan))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert "disk full" in output
    assert "run the same command again" in output
    assert [p.name for p in (mini.run_folder / "rl" / "checkpoints").iterdir()] == ["step-000002.pt"]
    assert "resuming rl after step 2" in mini.here()
    assert differences(end_of(mini), end_of(undisturbed)) == NONE
