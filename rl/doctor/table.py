"""The tables of checks, in the order in which they are made and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from configs.text import one_line
from rl.doctor import machine, ray_checks, run_checks
from rl.doctor.machine import Machine
from rl.doctor.result import CheckResult, warning
from rl.doctor.run_facts import RunFacts

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorCheck(Generic[T]):
    """One check: its name in the table, what a fault of it looks like in a run, and the function that makes it."""

    name: str
    symptom: str
    look: Callable[[T], CheckResult]


MACHINE_CHECKS: tuple[DoctorCheck[Machine], ...] = (
    DoctorCheck(
        name="packages",
        symptom="ImportError, or an argument that a library does not know",
        look=machine.packages,
    ),
    DoctorCheck(
        name="memory", symptom="the run or a worker ends with SIGKILL (-9) and no message", look=machine.memory
    ),
    DoctorCheck(
        name="shared memory",
        symptom="SIGBUS (-7), or Ray says that it uses /tmp in place of /dev/shm",
        look=machine.shared_memory,
    ),
    DoctorCheck(name="disk", symptom="`disk full while writing ...`, or `cannot be written`", look=machine.disk),
    DoctorCheck(name="open files", symptom="`Too many open files`", look=machine.open_files),
    DoctorCheck(name="GPUs", symptom="everything runs on the CPU, or `CUDA error`", look=machine.gpu),
    DoctorCheck(name="port", symptom="`Address already in use` when ranks start", look=machine.loopback),
    DoctorCheck(
        name="cluster ports",
        symptom="`ray start --head` or the dashboard does not start",
        look=ray_checks.ports,
    ),
    DoctorCheck(name="RAY_ADDRESS", symptom="`nothing answers there`", look=ray_checks.ray_address),
    DoctorCheck(name="old Ray", symptom="less memory and cores than the machine has", look=ray_checks.old_ray),
    DoctorCheck(
        name="Ray's address file",
        symptom="`ray status` or RAY_ADDRESS=auto waits and fails",
        look=ray_checks.left_over,
    ),
    DoctorCheck(name="Ray's disk", symptom="objects are not spilled; a step stops", look=ray_checks.ray_disk),
    DoctorCheck(name="Ray's folder", symptom="`AF_UNIX path too long`", look=ray_checks.socket_path),
    DoctorCheck(name="mirror", symptom="the scheme of `mirror` is not known", look=machine.mirror),
    DoctorCheck(name="hub token", symptom="`thinkvl export --push`: there is no token", look=machine.hub_token),
)

RUN_CHECKS: tuple[DoctorCheck[RunFacts], ...] = (
    DoctorCheck(name="process", symptom="the command ended, with or without a message", look=run_checks.process),
    DoctorCheck(
        name="stopped processes",
        symptom="nothing moves, and no core is busy",
        look=run_checks.stopped,
    ),
    DoctorCheck(name="progress", symptom="no new line for many times the usual step", look=run_checks.progress),
    DoctorCheck(name="waits", symptom="a step never ends", look=run_checks.waits),
    DoctorCheck(
        name="killed for memory",
        symptom="workers die again and again, without a traceback",
        look=run_checks.killed_for_memory,
    ),
    DoctorCheck(name="disk", symptom="`disk full while writing ...`", look=run_checks.room),
    DoctorCheck(name="checkpoints", symptom="`cannot be read ...; trying the one before`", look=run_checks.checkpoints),
    DoctorCheck(
        name="workers", symptom="`worker N: death`, `hang` or `exception` on the console", look=run_checks.workers
    ),
    DoctorCheck(name="quarantine", symptom="tasks are left out", look=run_checks.quarantine),
    DoctorCheck(name="training", symptom="the reward does not rise, or looks too good", look=run_checks.training),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A check and its outcome."""

    name: str
    finding: CheckResult


def check_machine(place: Machine) -> list[Checked]:
    """Every check of a machine."""
    return [Checked(name=check.name, finding=_made(check, place)) for check in MACHINE_CHECKS]


def check_run(run: RunFacts) -> list[Checked]:
    """Every check of a run."""
    return [Checked(name=check.name, finding=_made(check, run)) for check in RUN_CHECKS]


def _made(check: DoctorCheck[T], about: T) -> CheckResult:
    """The outcome; a check that fails itself is a warning, and the others are still made."""
    try:
        return check.look(about)
    except Exception as error:
        said = f"could not be checked ({type(error).__name__}: {one_line(error, 160)})"
        return warning(said, "", "the other checks are made all the same")
