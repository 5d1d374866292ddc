"""Checks of Ray before a run: an old one that still runs, what a dead one left, its address and its ports."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass
from pathlib import Path

from configs.errors import UserError
from configs.text import shorten
from rl.cli.ray_address import check_ray_address
from rl.doctor.machine import Machine
from rl.doctor.result import CheckResult, fault, ok, warning

_SERVERS = {"raylet", "gcs_server"}
_FULL = 0.95  # of a disk: Ray then refuses to spill objects
PORTS = {6379: "of `ray start --head`", 8265: "of the dashboard, for `thinkvl submit`"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RayProcess:
    """A server of Ray that runs on this machine."""

    pid: int
    name: str
    session: str  # its folder's name, where the command line has one
    orphan: bool  # the process that started it is gone


def ray_processes() -> list[RayProcess]:
    """The servers of Ray on this machine that belong to this user."""
    import psutil

    found = []
    for process in psutil.process_iter(["name", "cmdline", "ppid", "uids"]):
        facts = process.info
        if facts["name"] in _SERVERS and facts["uids"] is not None and facts["uids"].real == os.getuid():
            line = " ".join(facts["cmdline"] or ())
            session = next((part.split("/")[0] for part in line.split("/ray/")[1:]), "")
            orphan = not _is_python(facts["ppid"])
            found.append(RayProcess(pid=process.pid, name=facts["name"], session=session, orphan=orphan))
    return found


def _is_python(pid: int) -> bool:
    """Whether a process runs Python, as the command that started a private Ray does."""
    import psutil

    try:
        return Path(psutil.Process(pid).exe()).name.startswith("python")
    except psutil.Error:
        return False


def old_ray(machine: Machine) -> CheckResult:
    """Ray's servers that run without the command that started them."""
    running = ray_processes()
    orphans = [process for process in running if process.orphan]
    if machine.environment.get("RAY_ADDRESS"):
        return ok(f"{len(running)} processes: RAY_ADDRESS is set, so a cluster is used")
    if orphans:
        pids = " ".join(str(process.pid) for process in orphans)
        names = ", ".join(sorted({process.name for process in orphans}))
        fix = f"if it is no cluster that you use: ray stop (or kill {pids}); to join it: RAY_ADDRESS=auto"
        return warning(f"{names} still runs (process {pids})", "no Ray that holds memory and cores", fix)
    return ok(f"{len(running)} processes of runs that go on" if running else "none runs")


def left_over(machine: Machine) -> CheckResult:
    """The address file that a killed Ray leaves behind, which other tools of Ray then wait for."""
    file = machine.ray_folder / "ray_current_cluster"
    try:
        address = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ok("none")
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and _listens(host, int(port)):
        return ok(f"{address} answers")
    fix = f"ray stop, or delete {file}; `thinkvl run` does not read it, `ray` and RAY_ADDRESS=auto do"
    return warning(f"{file} names {shorten(address, 80)}, where nothing answers", "an address that answers", fix)


def ray_address(machine: Machine) -> CheckResult:
    """The cluster that RAY_ADDRESS names."""
    address = machine.environment.get("RAY_ADDRESS", "")
    if not address:
        return ok("not set: a private Ray on this machine")
    try:
        check_ray_address()
    except UserError as error:
        return fault(shorten(str(error), 200), "HOST:PORT of `ray start --head`", "correct or unset RAY_ADDRESS")
    return ok(f"{shorten(address, 80)} answers")


def ports(machine: Machine) -> CheckResult:
    """The ports of a cluster's head, held by something else. A private Ray takes any that are free."""
    if machine.environment.get("RAY_ADDRESS") or any(process.name == "gcs_server" for process in ray_processes()):
        return ok("a Ray runs here")
    taken = [f"{port} ({what})" for port, what in PORTS.items() if _listens("127.0.0.1", port)]
    if taken:
        fix = "harmless for a run on this machine; for a cluster: ss -ltnp names the process, or ray start --port=PORT"
        return warning(f"taken: {', '.join(taken)}", "free ports for a cluster's head", fix)
    return ok("free: " + ", ".join(map(str, PORTS)))


def ray_disk(machine: Machine) -> CheckResult:
    """The disk of Ray's sessions, where logs go and objects that do not fit into memory."""
    there = next(path for path in (machine.ray_folder, *machine.ray_folder.parents) if path.exists())
    usage = shutil.disk_usage(there)
    share = usage.used / max(1, usage.used + usage.free)
    shown = f"{share:.0%} of the disk of {there} used"
    if share > _FULL:
        fix = f"free some space (old sessions: {machine.ray_folder}/session_*), or export RAY_TMPDIR=/another/disk"
        return fault(shown, f"at most {_FULL:.0%}", fix)
    return ok(shown, f"at most {_FULL:.0%}")


def socket_path(machine: Machine) -> CheckResult:
    """The length of Ray's temporary folder: the names of its sockets must stay below 108 characters."""
    length = len(str(machine.ray_folder.absolute()))
    allowed = "at most 45 characters"
    if length > 45:
        fix = "export RAY_TMPDIR=/tmp (a short path)"
        return fault(f"{machine.ray_folder}: {length} characters", allowed, fix)
    return ok(f"{length} characters", allowed)


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1.0):
            return True
    except OSError:
        return False
