"""A private Ray whose raylet dies or is stopped ends the command with one clear line, though Ray may print its log."""

import subprocess
import sys
import time

import psutil
import pytest
from test_start_ray import ROOT, environment

PROGRAM = """
import ray
from rollouts.workers import raylet_watch
from rollouts.workers.start_ray import start_ray
raylet_watch.STOPPED_SECONDS = 1.0
start_ray(1)

@ray.remote
def wait():
    import time
    time.sleep(100)

waiting = [wait.remote()]
print("ready", flush=True)
ray.get(waiting)
"""


@pytest.mark.parametrize(("how", "said"), [("kill", "was killed (SIGKILL)"), ("suspend", "has been stopped for 1 s")])
def test_a_raylet_that_is_gone_is_told_in_one_line(how, said, tmp_path):
    command = [sys.executable, "-c", PROGRAM]
    console = tmp_path / "stderr.txt"
    with console.open("w") as file:
        process = subprocess.Popen(
            command, env=environment(PYTHONPATH=str(ROOT)), stdout=subprocess.PIPE, stderr=file, text=True
        )
    while process.stdout.readline() not in ("ready\n", ""):
        pass
    children = psutil.Process(process.pid).children(recursive=True)
    [raylet] = [child for child in children if child.name() == "raylet"]
    time.sleep(1)
    before = console.read_text()  # what libraries print as they are imported and Ray as it starts
    getattr(raylet, how)()
    process.communicate(timeout=60)
    errors = console.read_text().removeprefix(before)
    assert process.returncode == 1, errors
    [line] = errors.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert line.endswith("the same command continues the run")
    slow_to_end = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"}
    others = [child for child in children if child.is_running() and child.name() not in slow_to_end]
    assert not psutil.wait_procs(others, timeout=20)[1]
