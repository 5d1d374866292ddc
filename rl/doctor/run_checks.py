"""Checks of a run that is going or dead: how it ended, whether it moves, who waits for whom, what is damaged."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from configs.text import counted, shorten
from rl.alarms.records import read_alarms
from rl.alarms.supervised import supervised_alarms
from rl.doctor.machine import Machine, disk
from rl.doctor.result import CheckResult, fault, gib, ok, warning
from rl.doctor.run_facts import RunFacts
from rl.doctor.stacks import dump, wait_sign

_SILENT = 60.0  # seconds without a file written, after which a run is looked at
_STEPS = 5.0  # times the usual step, after which it counts as stuck
_READ = 2 * 2**30  # bytes of a checkpoint whose checksums are computed
_AGAIN = "run the same command again: it continues from the newest checkpoint"
_CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")
_WAITING = {"stopped": "kill -CONT {pid}", "tracing-stop": "end the debugger", "zombie": "its parent ends it"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Text of an error or of a failure file that shows a cause."""

    pattern: re.Pattern[str]
    cause: str
    advice: str


CAUSES = (
    Cause(
        pattern=re.compile(r"No space left|disk full|os error 28|Disk quota|PytorchStreamWriter failed", re.IGNORECASE),
        cause="the disk is full",
        advice=f"free some space or raise the quota, then {_AGAIN}",
    ),
    Cause(
        pattern=re.compile(r"CUDA out of memory|OutOfMemoryError: CUDA|CUBLAS_STATUS_ALLOC_FAILED"),
        cause="the memory of a GPU was too small",
        advice="lower micro_batch_tokens, rl.sampling.max_new_tokens or rl.prompts_per_step; `thinkvl plan` names the "
        f"smallest change that fits; then {_AGAIN}",
    ),
    Cause(
        pattern=re.compile(r"out of memory|OutOfMemory|Cannot allocate memory|MemoryError|oom", re.IGNORECASE),
        cause="the main memory was too small",
        advice=f"lower rl.workers or rl.prompts_per_step, or end other processes, then {_AGAIN}",
    ),
    Cause(
        pattern=re.compile(r"CheckpointError|no checkpoint in .* can be read|is damaged", re.IGNORECASE),
        cause="a file of the run is damaged",
        advice="the error names it: put it back, or delete it to go on from an older one",
    ),
    Cause(
        pattern=re.compile(r"NCCL|ProcessGroup|rank \d+ (died|was lost)|Connection reset by peer"),
        cause="ranks of the learner lost each other",
        advice=f"look at the network between nodes (NCCL_DEBUG=INFO), then {_AGAIN}",
    ),
    Cause(
        pattern=re.compile(r"raylet|Ray cannot start|GCS"),
        cause="Ray did not start, or ended",
        advice=f"`thinkvl doctor` without a run checks what Ray needs; then {_AGAIN}",
    ),
    Cause(
        pattern=re.compile(r"verifier|PluginError|reward function", re.IGNORECASE),
        cause="a verifier or reward function failed",
        advice=f"`thinkvl check-reward FILE` and `thinkvl audit RECIPE` show it; mend it, then {_AGAIN}",
    ),
    Cause(
        pattern=re.compile(r"worker \d+ (fails|has made no progress)|WorkerError"),
        cause="a rollout worker failed",
        advice=f"failures/ in the run's folder has its whole text; then {_AGAIN}",
    ),
)


def cause_of(text: str) -> Cause | None:
    """The first of the known causes that a text shows."""
    return next((cause for cause in CAUSES if cause.pattern.search(text)), None)


def process(run: RunFacts) -> CheckResult:
    """Whether the command runs, and how the last one ended."""
    where = run.stage or "export"
    if run.locked:
        return ok(f"process {run.pid} runs in stage {where}")
    if run.done:
        return ok("finished")
    if run.end is None:
        return warning(f"no command runs, in stage {where}", "a finished run", _AGAIN)
    if run.end.state == "failed":
        cause = cause_of(run.end.error)
        named = f"{cause.cause}: " if cause else ""
        return fault(f"{named}{shorten(run.end.error)}", "a finished run", cause.advice if cause else _AGAIN)
    if run.end.state == "running":
        killed = f"process {run.end.pid} on {run.end.host} was killed in stage {where}, without a chance to say why"
        fix = f"`dmesg | grep -i kill` or the scheduler's log tell who did it (out of memory, a time limit); {_AGAIN}"
        return fault(killed, "a finished run", fix)
    return warning(f"stopped by Ctrl-C or SIGTERM in stage {where}", "a finished run", _AGAIN)


def progress(run: RunFacts) -> CheckResult:
    """Whether a running command still writes anything, measured by its usual step."""
    if not run.locked:
        return ok("does not run")
    silent, usual = run.silent_seconds, run.step_seconds
    limit = max(_SILENT, _STEPS * usual) if usual is not None else 5 * _SILENT
    of = f"; a step usually takes {usual:.0f} s" if usual is not None else ""
    shown = f"{silent:.0f} s since a file was written{of}"
    if silent > limit:
        return fault(shown, f"at most {limit:.0f} s", "see who waits for whom, and the stacks")
    return ok(shown, f"at most {limit:.0f} s")


def waits(run: RunFacts) -> CheckResult:
    """Who waits for whom: by the stacks of the process that drives the run."""
    if not run.locked or run.pid is None:
        return ok("does not run")
    if not run.processes:
        fix = f"run `thinkvl doctor` on the machine of process {run.pid}"
        return warning(f"process {run.pid} is not on this machine", "a process of this machine", fix)
    text, found = dump(run.pid)
    if not found:
        return warning(text, "stacks", text.partition("; ")[2] or "try again")
    sign = wait_sign(text)
    if sign is None:
        return ok("the driver computes")
    stuck = progress(run).level != "ok"
    said = f"the driver waits for {sign.waits_for}"
    return fault(said, "no longer than a step", sign.advice) if stuck else ok(said)


def stopped(run: RunFacts) -> CheckResult:
    """Processes that are stopped (SIGSTOP, Ctrl-Z) or wait for a disk."""
    named = [p for p in run.processes if p.state in _WAITING and not (p.state == "zombie" and p.name != "driver")]
    if named:
        shown = ", ".join(f"{p.name} (process {p.pid}) is {p.state}" for p in named)
        return fault(shorten(shown), "running or sleeping", _WAITING[named[0].state].format(pid=named[0].pid))
    if waiting := [p for p in run.processes if p.state == "disk-sleep"]:
        shown = ", ".join(f"{p.name} (process {p.pid})" for p in waiting)
        return warning(f"{shorten(shown)}: waits for a disk", "running or sleeping", "df and dmesg tell of a slow disk")
    return ok(f"{len(run.processes)} processes, {gib(sum(p.memory for p in run.processes))}")


def killed_for_memory(run: RunFacts) -> CheckResult:
    """Signs that the kernel or Ray killed a process of the run for its memory."""
    for file in reversed(run.failures):
        cause = cause_of(_text(file))
        if cause is not None and "memory" in cause.cause:
            return fault(f"{cause.cause}: {file.name}", "no worker killed for its memory", cause.advice)
    try:
        events = dict(line.split() for line in _CGROUP_EVENTS.read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return ok("no sign")
    if (kills := int(events.get("oom_kill", 0))) and not run.done:
        fix = "raise the container's limit of memory, or lower rl.workers"
        return warning(f"the kernel killed {kills} processes of this container", "none", fix)
    return ok("no sign")


def workers(run: RunFacts) -> CheckResult:
    """Workers that failed, by the files that the run keeps of them."""
    if not run.failures:
        return ok("none failed")
    last = run.failures[-1]
    said = shorten(_text(last).strip().partition("\n")[0], 200)
    return warning(f"{len(run.failures)} failed, the last: {said}", "none", f"read {last}")


def checkpoints(run: RunFacts) -> CheckResult:
    """Whether the newest checkpoints of the stage at hand can be read."""
    files = sorted((run.folder / run.stage / "checkpoints").glob("step-*.pt")) if run.stage else []
    wrong = [f"{file} ({why})" for file in files if (why := _damage(file)) is not None]
    if wrong and len(wrong) == len(files):
        fix = f"delete them: the stage {run.stage} then starts from its beginning"
        return fault(f"every one is damaged: {shorten(', '.join(wrong))}", "one that can be read", fix)
    if wrong:
        fix = "nothing to do: the run goes on from the one before"
        return warning(f"damaged: {shorten(', '.join(wrong))}", "whole files", fix)
    return ok(f"{len(files)} in stage {run.stage}" if files else "none yet")


def room(run: RunFacts) -> CheckResult:
    """Room on the disk of the run's folder."""
    return disk(Machine(output=run.folder, config=None))


def quarantine(run: RunFacts) -> CheckResult:
    """Tasks that no worker survived."""
    count = _text(run.folder / "quarantine.json").count('"task":')
    if count:
        return warning(
            counted(count, "task"), "none", f"read {run.folder / 'quarantine.json'}; delete it to try them again"
        )
    return ok("none")


def training(run: RunFacts) -> CheckResult:
    """Alarms that are not over."""
    raised = {}
    for row in [*read_alarms(run.folder), *supervised_alarms(run.stage or "", run.rows)]:
        if row["event"] == "over":
            raised.pop((row["stage"], row["alarm"]), None)
        else:
            raised[row["stage"], row["alarm"]] = row
    if raised:
        last = list(raised.values())[-1]
        return warning(f"alarm in step {last['step']}: {last['title']}", "no alarm", shorten(last["advice"]))
    if run.stage is None:
        return ok("all stages are finished")
    return ok(f"{counted(len(run.rows), 'line')} of metrics in stage {run.stage}" if run.rows else "no metrics yet")


def _damage(file: Path) -> str | None:
    """Why a checkpoint cannot be read; None where nothing is wrong. Of a large one only its list of parts is read."""
    try:
        with zipfile.ZipFile(file) as archive:
            part = archive.testzip() if file.stat().st_size <= _READ else None
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        return shorten(str(error), 80)
    return f"wrong checksum of {part}" if part else None


def _text(file: Path) -> str:
    try:
        with file.open("rb") as data:
            return data.read(2**20).decode("utf-8", "replace")
    except OSError:
        return ""
