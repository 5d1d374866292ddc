"""Stacks of a process that does not move, by py-spy, and what it waits for by them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 20.0
_ABSENT = "no stacks: py-spy is not installed; pip install py-spy"
_FORBIDDEN = (
    "no stacks: this user may not look into process {pid}; run the same command with sudo, or in a container started "
    "with --cap-add SYS_PTRACE"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitSign:
    """Text of a stack that shows what is waited for."""

    pattern: re.Pattern[str]
    waits_for: str
    advice: str


# The first that matches the main thread, from the innermost calls on.
WAIT_SIGNS = (
    WaitSign(
        pattern=re.compile(r"\(rewards/|/rewards/\w|rewards[./]scorer|scoring\.py|pending_score"),
        waits_for="a verifier or reward function",
        advice="see the stacks of the processes below it; `thinkvl check-reward FILE` times a reward of yours, and its "
        "own time limit belongs into the function",
    ),
    WaitSign(
        pattern=re.compile(r"weight_sync|engine_weights|publish"),
        waits_for="a weight sync: a worker takes the weights",
        advice="look whether a worker is stopped or its node is lost",
    ),
    WaitSign(
        pattern=re.compile(r"all_reduce|all_gather|reduce_scatter|broadcast|barrier|init_process_group|learner_group"),
        waits_for="another rank of the learner",
        advice="a rank that is stopped, dead or behind shows in the list of processes; nodes must reach each other",
    ),
    WaitSign(
        pattern=re.compile(r"dispatcher\.py|workers/pool\.py|worker_group|rollout_pipeline"),
        waits_for="rollout workers",
        advice="a worker without progress is replaced after rl.worker_deadline seconds; see failures/",
    ),
    WaitSign(
        pattern=re.compile(r"prefetch\.py|example_batches"),
        waits_for="a process that prepares examples",
        advice="a slow data file or image folder: copy it to a local disk",
    ),
    WaitSign(
        pattern=re.compile(r"checkpoint|fsync|torch/serialization|safetensors"),
        waits_for="the disk: a checkpoint is written",
        advice="a network file system that hangs: look at `df` and `dmesg`",
    ),
    WaitSign(
        pattern=re.compile(r"ssl\.py|urllib3|httpx|huggingface_hub|socket\.py"),
        waits_for="the network",
        advice="HF_HUB_OFFLINE=1 uses what is on this machine; trackers: [] leaves the trackers out",
    ),
)


def dump(pid: int) -> tuple[str, bool]:
    """The stacks of a Python process, and True; or a sentence why there are none, and False."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    tool = shutil.which("py-spy", path=places)
    if tool is None:
        return _ABSENT, False
    try:
        command = [tool, "dump", "--nonblocking", "--pid", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no stacks: py-spy gave none of process {pid} within {_SECONDS:.0f} s", False
    except OSError as error:
        return f"no stacks: py-spy cannot be run ({error.strerror})", False
    if done.returncode == 0:
        return done.stdout, True
    if re.search(r"permission|not permitted|ptrace", done.stderr, re.IGNORECASE):
        return _FORBIDDEN.format(pid=pid), False
    last = (done.stderr.strip().splitlines() or [""])[0]
    return f"no stacks: py-spy cannot read process {pid} ({last[:160]})", False


def wait_sign(stacks: str) -> WaitSign | None:
    """What the main thread waits for, by the innermost call of it that is known."""
    main = next((part for part in stacks.split("\n\n") if '"MainThread"' in part), "")
    for line in main.splitlines()[1:]:
        for sign in WAIT_SIGNS:
            if sign.pattern.search(line):
                return sign
    return None
