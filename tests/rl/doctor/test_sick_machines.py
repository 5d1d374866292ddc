"""Machines on which a run would fail, most of them really so: each is named, with what is allowed and a fix."""

import os
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from configs.load import load_recipe
from rl.doctor import machine, ray_checks, table
from rl.doctor.machine import Machine
from rl.doctor.result import ok
from rl.doctor.table import DoctorCheck, check_machine

RECIPE = "configs/recipes/quickstart.yaml"


def sick(finding, level, *words):
    assert finding.level == level, finding
    for word in words:
        assert str(word) in finding.value, finding
    assert finding.allowed
    assert finding.fix


@pytest.fixture
def listening():
    """The port of a server that is no Ray."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def executable(folder, name, script):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)
    return {"PATH": str(folder)}


def test_a_healthy_machine_has_no_fault_and_needs_neither_torch_nor_ray(root_folder):
    code = (
        "import sys; from rl.cli.main import main; sys.argv = ['thinkvl', 'doctor', sys.argv[1]]\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    env = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MASTER_"))}
    path = os.pathsep.join([folder for folder in env["PATH"].split(os.pathsep) if "nvidia" not in folder])
    command = [sys.executable, "-c", code, RECIPE]
    done = subprocess.run(command, cwd=root_folder, env=env | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(table.MACHINE_CHECKS)} checks in " in done.stdout
    assert shutil.which("nvidia-smi") or done.stdout.rstrip().endswith("[]")


@pytest.fixture
def root_folder(pytestconfig):
    return pytestconfig.rootpath


def test_a_version_that_clashes(tmp_path, monkeypatch):
    info = tmp_path / "rapidfuzz-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rapidfuzz\nVersion: 0.1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    sick(machine.packages(Machine()), "fault", "rapidfuzz 0.1 (>=3.14)")


def test_a_package_that_the_recipe_names_is_missing(monkeypatch, root_folder):
    monkeypatch.chdir(root_folder)
    config = load_recipe(root_folder / RECIPE, ["trackers=[mlflow]"])
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: None)
    sick(machine.packages(Machine(config=config)), "fault", "mlflow is missing")


@pytest.mark.parametrize(("megabytes", "level"), [(64, "fault"), (512, "warning")])
def test_a_small_shared_memory(small_disk, megabytes, level):
    """64 MB are Docker's default."""
    sick(machine.shared_memory(Machine(shm=small_disk(megabytes))), level, "MiB free in")


def test_no_shared_memory(tmp_path):
    sick(machine.shared_memory(Machine(shm=tmp_path / "none")), "fault", "No such file")


def test_a_full_disk(small_disk):
    place = small_disk(8) / "runs" / "mine"
    sick(machine.disk(Machine(output=place)), "fault", "MiB free in")


def test_a_container_with_little_memory(tmp_path, monkeypatch):
    (tmp_path / "max").write_text(f"{2 << 30}\n")
    (tmp_path / "used").write_text(f"{1 << 30}\n")
    monkeypatch.setattr(machine, "CGROUPS", ((tmp_path / "max", tmp_path / "used"),))
    sick(machine.memory(Machine()), "fault", "1.0 GiB free in this container")
    (tmp_path / "max").write_text("max\n")
    assert "container" not in machine.memory(Machine()).value


def test_few_open_files(monkeypatch):
    monkeypatch.setattr(machine.resource, "getrlimit", lambda _kind: (1024, 524_288))
    sick(machine.open_files(Machine()), "warning", "1,024")


def test_a_port_that_is_taken(listening):
    sick(machine.loopback(Machine(environment={"MASTER_PORT": str(listening)})), "fault", listening, "in use")
    sick(machine.loopback(Machine(environment={"MASTER_PORT": "x"})), "fault", "MASTER_PORT=x")
    assert machine.loopback(Machine(environment={})).level == "ok"


def test_the_port_of_a_head_is_taken(listening, monkeypatch):
    monkeypatch.setattr(ray_checks, "PORTS", {listening: "of the head"})
    monkeypatch.setattr(ray_checks, "ray_processes", list)
    sick(ray_checks.ports(Machine(environment={})), "warning", listening)


def test_an_old_ray_that_still_runs(tmp_path):
    raylet = tmp_path / "raylet"
    shutil.copy(shutil.which("sleep"), raylet)
    started = ["sh", "-c", f"{raylet} 60 >/dev/null 2>&1 & echo $!"]
    pid = int(subprocess.run(started, capture_output=True, text=True, check=True).stdout)
    try:
        finding = ray_checks.old_ray(Machine(environment={}))
        sick(finding, "warning", "raylet still runs", pid)
        assert "ray stop" in finding.fix
    finally:
        os.kill(pid, signal.SIGKILL)


def test_the_address_file_of_a_dead_ray(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)
        sick(ray_checks.left_over(Machine(environment={"RAY_TMPDIR": str(tmp_path)})), "warning", address)


def test_an_address_where_nothing_or_no_ray_answers(listening, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{listening}")
    monkeypatch.setattr("rl.cli.ray_address._seen_by_ray", lambda host: host)
    sick(ray_checks.ray_address(Machine()), "fault", "it is no Ray")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    sick(ray_checks.ray_address(Machine()), "fault", "nothing answers")


def test_the_disk_of_ray_is_full(small_disk):
    folder = small_disk(4)
    (folder / "filler").write_bytes(bytes(4 * 2**20 - 16_384))
    finding = ray_checks.ray_disk(Machine(environment={"RAY_TMPDIR": str(folder)}))
    sick(finding, "fault", "% of the disk")


def test_a_path_too_long_for_sockets():
    sick(ray_checks.socket_path(Machine(environment={"RAY_TMPDIR": "/tmp/" + "x" * 60})), "fault", "69 characters")


@pytest.mark.parametrize(
    ("script", "word"),
    [
        ("echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18", "version mismatch"),
        ("echo", "exit code 0"),
        ("echo garbage", "fails"),
    ],
)
def test_a_driver_that_does_not_answer(tmp_path, script, word):
    sick(machine.gpu(Machine(environment=executable(tmp_path / "bin", "nvidia-smi", script))), "fault", word)


@pytest.mark.parametrize(("torch_sees_it", "level"), [(False, "fault"), (True, "warning")])
def test_a_card_that_torch_does_not_see_or_others_use(tmp_path, monkeypatch, torch_sees_it, level):
    env = executable(tmp_path / "bin", "nvidia-smi", "echo 'NVIDIA H100, 1024, 81559, 470.82'")
    monkeypatch.setattr("torch.cuda.is_available", lambda: torch_sees_it)
    sick(machine.gpu(Machine(environment=env)), level, "470.82" if not torch_sees_it else "1.0 GiB of")


def test_no_token_where_a_push_is_wanted(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    sick(machine.hub_token(Machine(push=True)), "fault", "none")
    assert machine.hub_token(Machine()).level == "ok"


def test_a_mirror_of_an_unknown_scheme(root_folder, monkeypatch):
    monkeypatch.chdir(root_folder)
    config = load_recipe(root_folder / RECIPE, ["mirror=nowhere://bucket/mine"])
    sick(machine.mirror(Machine(config=config)), "fault", "nowhere://")


def test_a_check_that_fails_does_not_stop_the_others(monkeypatch):
    def broken(_machine):
        raise RuntimeError("no such thing")

    checks = (
        DoctorCheck(name="a", symptom="", look=broken),
        DoctorCheck(name="b", symptom="", look=lambda _machine: ok("fine")),
    )
    monkeypatch.setattr(table, "MACHINE_CHECKS", checks)
    assert [one.finding.level for one in check_machine(Machine())] == ["warning", "ok"]
