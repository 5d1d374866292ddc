"""Checks of the machine before a run: packages, memory, disks, ports, GPUs, tokens."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from configs.schema import RunConfig
from configs.text import shorten
from rl.doctor.result import CheckResult, fault, gib, least, ok, warning

_GIB = 2**30
_COPIES = 6  # of the weights that a run's folder holds: two checkpoints with moments, the best, the model, the export
_FILES = 4096  # open files: Ray's processes hold hundreds each
_SECONDS = 10.0  # for nvidia-smi
CGROUPS = (  # limit and use of a container's memory, version 2 and version 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What the checks look at: this machine, and the recipe that is to run on it, if one is named."""

    output: Path = field(default_factory=lambda: Path("runs"))
    config: RunConfig | None = None
    push: bool = False  # the result will be pushed to the Hub
    shm: Path = Path("/dev/shm")
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)

    @property
    def ray_folder(self) -> Path:
        """Where Ray keeps its sessions."""
        return Path(self.environment.get("RAY_TMPDIR", "/tmp")) / "ray"

    @property
    def weights(self) -> int:
        """Bytes of the model's weights; 0 for the tiny model, and for one of the Hub that is not here yet."""
        folder = Path(self.config.model.path).expanduser() if self.config is not None else Path("tiny")
        return sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_dir() else 0


def packages(machine: Machine) -> CheckResult:
    """Installed versions against those that ThinkVL requires."""
    try:
        wanted = metadata.requires("thinkvl") or []
    except metadata.PackageNotFoundError:
        return warning("thinkvl is not installed here", "an installed package", "pip install -c constraints.txt -e .")
    wrong, count = [], 0
    for requirement in _without_extras(wanted):
        count += 1
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing ({requirement.specifier})")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version} ({requirement.specifier})")
    wrong += [f"{name} is missing (the recipe names it)" for name in _named_packages(machine) if not _installed(name)]
    if not wrong:
        return ok(f"{count} packages")
    fix = "pip install -c constraints.txt -e . (or the package alone, in the version named)"
    return fault(shorten(", ".join(wrong)), "the versions in brackets", fix)


def _without_extras(lines: Iterable[str]) -> list[Requirement]:
    found = []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.append(requirement)
    return found


def _named_packages(machine: Machine) -> list[str]:
    """Import names of optional packages that the recipe needs."""
    if machine.config is None:
        return []
    optional = {"wandb", "trackio", "mlflow"}
    named = {tracker for tracker in machine.config.trackers if tracker in optional}
    named |= {"vllm" for stage in machine.config.rl_stages if stage.engine == "vllm"}
    return sorted(named)


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def memory(machine: Machine) -> CheckResult:
    """Free main memory, within the container's limit."""
    import psutil

    free, where = float(psutil.virtual_memory().available), "free"
    for limit, used in CGROUPS:
        try:
            left = int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such version, or `max`
            continue
        if left < free:
            free, where = max(0.0, float(left)), "free in this container"
    needed = 2 * _GIB + 2 * machine.weights  # the learner's and one engine's; moments come on top
    fix = "end other processes, raise the container's limit, or lower rl.workers; `thinkvl plan` counts what is needed"
    return least(free, needed=needed, wished=2 * needed, unit=where, fix=fix)


def shared_memory(machine: Machine) -> CheckResult:
    """Room in /dev/shm, through which rollouts and weights travel between processes."""
    try:
        free = shutil.disk_usage(machine.shm).free
    except OSError as error:
        why = error.strerror or "unknown"
        return fault(f"{machine.shm}: {why}", "a folder in memory", f"mount -t tmpfs tmpfs {machine.shm}")
    fix = "docker run --shm-size=8g, in Kubernetes an emptyDir of medium Memory; without it Ray uses the disk, slowly"
    needed = 128 * 2**20 + machine.weights
    return least(free, needed=needed, wished=needed + _GIB, unit=f"free in {machine.shm}", fix=fix)


def disk(machine: Machine) -> CheckResult:
    """Room where the run is written, and whether this user may write there."""
    place = machine.output.expanduser().absolute()
    there = next(folder for folder in (place, *place.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        return fault(f"{there} cannot be written", "a folder of this user", "choose another with output_dir=PATH")
    free = shutil.disk_usage(there).free
    needed = 256 * 2**20 + _COPIES * machine.weights
    fix = "free some space, delete old runs, or choose another place with output_dir=PATH"
    return least(free, needed=needed, wished=needed + 2 * _GIB, unit=f"free in {there}", fix=fix)


def open_files(machine: Machine) -> CheckResult:
    """The limit on open files of a process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = "no limit" if soft == resource.RLIM_INFINITY else f"{soft:,}"
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        return warning(limit, f"at least {_FILES:,}", f"ulimit -n {min(65_536, hard) if hard > 0 else 65_536}")
    return ok(limit, f"at least {_FILES:,}")


def loopback(machine: Machine) -> CheckResult:
    """Whether a server can be opened on this machine, as the private Ray and ranks of learners do."""
    port = machine.environment.get("MASTER_PORT", "0")
    if not port.isdigit() or int(port) > 65_535:
        return fault(f"MASTER_PORT={port}", "a number up to 65535", "correct or unset MASTER_PORT")
    try:
        with socket.socket() as server:
            server.bind(("127.0.0.1", int(port)))
            server.listen()
    except OSError as error:
        fix = "unset MASTER_PORT, choose another, or end the process that holds it: ss -ltnp"
        return fault(f"port {port}: {error.strerror}", "a free port on 127.0.0.1", fix)
    return ok("a port can be opened" if port == "0" else f"port {port} is free", "a free port on 127.0.0.1")


def gpu(machine: Machine) -> CheckResult:
    """GPUs, their driver and what others hold on them; where there is none, whether the recipe asks for one."""
    listed = _nvidia_smi(machine)
    if isinstance(listed, CheckResult):
        return listed
    names = ", ".join(f"{name} ({gib(free * 2**20)} of {gib(total * 2**20)} free)" for name, free, total, _ in listed)
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"torch {torch.__version__} is built for {f'CUDA {built}' if built else 'the CPU'}"
        fix = "install a newer driver, or the torch that fits it: https://pytorch.org/get-started/locally"
        return fault(f"driver {listed[0][3]}; {why}, and sees no GPU", "a driver that fits torch", fix)
    if held := [name for name, free, total, _ in listed if free < 0.9 * total]:
        fix = "nvidia-smi lists the processes; end those that you started, or choose cards by CUDA_VISIBLE_DEVICES"
        return warning(f"memory of {', '.join(held)} is in use: {names}", "90 % free", fix)
    return ok(f"{names}, driver {listed[0][3]}")


def _nvidia_smi(machine: Machine) -> list[tuple[str, float, float, str]] | CheckResult:
    """Name, free and whole MiB of each card and the driver's version; a finding where there is no card to list."""
    tool = shutil.which("nvidia-smi", path=machine.environment.get("PATH"))
    if tool is None:
        if machine.weights > 4 * _GIB or "vllm" in _named_packages(machine):
            return warning("none was found", "a GPU for this model or engine", "run on a machine with GPUs")
        return ok("none: runs on the CPU")
    query = [tool, "--query-gpu=name,memory.free,memory.total,driver_version", "--format=csv,noheader,nounits"]
    fix = "nvidia-smi says more; reload the driver, or restart the machine or container with --gpus all"
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        return fault(f"nvidia-smi fails: {shorten(str(error), 160)}", "a driver that answers", fix)
    cards = _cards(done.stdout)
    if done.returncode or not cards:
        said = shorten(done.stderr or done.stdout, 160) or f"exit code {done.returncode}"
        return fault(f"nvidia-smi fails: {said}", "a driver that answers", fix)
    return cards


def _cards(listed: str) -> list[tuple[str, float, float, str]]:
    """The rows of nvidia-smi; none where a line is no row."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listed.splitlines() if line.strip()]
    try:
        return [(name, float(free), float(total), driver) for name, free, total, driver in rows]
    except ValueError:
        return []


def hub_token(machine: Machine) -> CheckResult:
    """The token for the Hugging Face Hub, where the result is to be pushed."""
    from huggingface_hub import get_token

    if get_token():
        return ok("there is one")
    if machine.push:
        fix = "make one with the right to write at https://huggingface.co/settings/tokens, then: export HF_TOKEN=..."
        return fault("none", "a token, for `thinkvl export --push`", fix)
    return ok("none: nothing is to be pushed")


def mirror(machine: Machine) -> CheckResult:
    """The package for the recipe's mirror."""
    url = machine.config.mirror if machine.config is not None else None
    if url is None:
        return ok("none in the recipe")
    import fsspec

    scheme = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(scheme)
    except (ImportError, ValueError) as error:
        return fault(f"{scheme}://: {shorten(str(error), 160)}", "a scheme of fsspec", "install the package named")
    return ok(f"{scheme}:// is known to fsspec")
