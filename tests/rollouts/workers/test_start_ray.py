"""Workers import our packages, whatever files lie in the user's folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import ray
from rollouts.workers.actor import start_ray
assert start_ray(1, say=print)

@ray.remote
def places():
    import configs, rewards, rl, rollouts
    return [m.__file__ for m in (configs, rewards, rl, rollouts)]

print(ray.get(places.remote()))
ray.shutdown()
"""


@pytest.mark.parametrize("on_path", [False, True])
def test_files_of_our_packages_names_in_the_working_folder_shadow_nothing(tmp_path, on_path):
    for name in ("configs", "rewards", "rl", "rollouts"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    variables = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
    variables |= {"RAY_AUTH_MODE": "disabled"} | ({"PYTHONPATH": str(tmp_path)} if on_path else {})
    command = [sys.executable, "-P", "-c", PROGRAM, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(str(ROOT)) == 4
    assert "started a private Ray on this machine, which ends with this command" in done.stdout


def test_a_run_says_that_it_joins_a_cluster(local_ray):
    address = ray.get_runtime_context().gcs_address
    program = "from rollouts.workers.actor import start_ray; assert start_ray(1, say=print)"
    variables = {**os.environ, "RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"joined the Ray cluster at {address} (RAY_ADDRESS): 1 nodes, " in done.stdout
