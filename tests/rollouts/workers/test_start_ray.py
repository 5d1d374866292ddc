"""Which Ray a run uses, where that listens, and that its workers import our packages, whatever the user has."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
import time
sys.path.insert(0, sys.argv[1])
import ray
from rollouts.workers.start_ray import start_ray
assert start_ray(1, say=print)

@ray.remote
def places():
    import configs, rewards, rl, rollouts
    return [m.__file__ for m in (configs, rewards, rl, rollouts)]

print(ray.get(places.remote()))
import psutil  # comes with Ray
mine = [psutil.Process(), *psutil.Process().children(recursive=True)]
listening = {c.laddr.ip for p in mine for c in p.net_connections() if c.status == psutil.CONN_LISTEN}
print("listening on", sorted(listening))
ray.shutdown()
"""


def environment(**more):
    return {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")} | more


@pytest.mark.parametrize("on_path", [False, True])
def test_files_of_our_packages_names_in_the_working_folder_shadow_nothing(tmp_path, on_path):
    for name in ("configs", "rewards", "rl", "rollouts"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('shadowed')")
    variables = environment(RAY_AUTH_MODE="disabled", **({"PYTHONPATH": str(tmp_path)} if on_path else {}))
    command = [sys.executable, "-P", "-c", PROGRAM, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count(str(ROOT)) == 4
    assert "starting a private Ray on this machine, which ends with this command" in done.stdout
    assert "listening on ['127.0.0.1', '::ffff:127.0.0.1']" in done.stdout, "no other machine can connect"


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The address of a Ray that somebody else started, with `ray start --head`."""
    folder = tmp_path_factory.mktemp("ray")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray = [str(Path(sys.executable).with_name("ray"))]
    command = [*ray, "start", "--head", f"--port={port}", "--include-dashboard=false", "--num-cpus=1", "--block"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment(), stdout=log, stderr=log)
    for _ in range(240):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.5).close()
            break
        except OSError:
            time.sleep(0.5)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(60)


def test_a_run_says_that_it_joins_a_cluster(head):
    program = (
        "from rl.cli.ray_address import check_ray_address; check_ray_address()\n"
        "from rollouts.workers.start_ray import start_ray; assert start_ray(1, say=print)"
    )
    variables = environment(RAY_ADDRESS=head, PYTHONPATH=str(ROOT))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"joining the Ray cluster at {head}, since RAY_ADDRESS is set" in done.stdout
    assert "1 node, 1 CPU" in done.stdout
