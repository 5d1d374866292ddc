"""`thinkvl submit` against a real cluster of two nodes on this machine, which requires a token."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest
import requests

MARK = "THINKVL_TEST_CLUSTER"  # in the environment of every process of the cluster, so that all of them are found

WATCHDOG = """
import os, psutil, shutil, sys
name, mark, folder = sys.argv[1:]
sys.stdin.read()  # ends when the tests are done, or were killed

def marked(process):
    try:
        return process.pid != os.getpid() and process.environ().get(name) == mark
    except psutil.Error:
        return False

for _ in range(20):
    left = [process for process in psutil.process_iter() if marked(process)]
    if not left:
        break
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=1)
shutil.rmtree(folder, ignore_errors=True)
"""

RECIPE = """
name: short
output_dir: {output}
threads: 1
model:
  path: tiny
  tiny: {{hidden_size: 32, num_hidden_layers: 2}}
data:
  train:
    - {{use: digit_sums, options: {{scans: [2]}}}}
    - {{use: ../data/rows.jsonl}}
    - {{use: "tasks.py:tasks", options: {{table: ../data/table.csv}}}}
  held_out: [{{use: digit_sums, split: held_out, options: {{scans: [2]}}}}]
stages:
  - {{kind: sft, name: instruct, steps: 3, batch_size: 8}}
  - {{kind: sft, name: long_cot, steps: 2, batch_size: 8, thinking_share: 0.5}}
  - kind: rl
    steps: 2
    prompts_per_step: 4
    samples_per_prompt: 4
    workers: 2
    sampling: {{max_new_tokens: 8}}
    loss: {{algorithm: grpo}}
    rewards: [{{use: verifier}}, {{use: "rewards.py:brevity", weight: 0.1}}]
evaluation: {{tasks: 8, validation_tasks: 4, max_new_tokens: 8}}
"""

PLUGIN = """
from rewards import Task

def brevity(response: str, reference: str, *, task: Task) -> float:
    return 1.0 / (1 + len(response))
"""


TASKS = """
from pathlib import Path

from helper import rows

def tasks(split, table):
    yield from rows(Path(table).read_text(), Path(__file__).with_name("words.txt").read_text())
"""
HELPER = """
def rows(table, words):
    return [{"question": f"{words} {line} + 1?", "answer": str(int(line) + 1)} for line in table.splitlines()]
"""


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


class LocalCluster:
    """A head and a second node with folders, ports and a token of their own."""

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="tvl-"))  # short: Ray's socket names have at most 107 characters
        self.port, self._client, dashboard, *self.ports = free_ports(13)
        self.address = f"http://127.0.0.1:{dashboard}"
        self.mark = uuid.uuid4().hex
        (self.folder / "home").mkdir()
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_") and k != "PYTHONPATH"}
        self.environment |= {
            MARK: self.mark,
            "HOME": str(self.folder / "home"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": "a-token-of-this-test-alone",
        }
        self._dashboard = dashboard

    def start(self):
        command = [sys.executable, "-c", WATCHDOG, MARK, self.mark, str(self.folder)]
        self._watchdog = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        head = [
            "--head",
            f"--port={self.port}",
            f"--dashboard-port={self._dashboard}",
            f"--ray-client-server-port={self._client}",
        ]
        self._start_node("head", [*head, f"--temp-dir={self.folder / 'head'}"], self.ports[:5])
        # a folder of its own, as on a machine of its own: nodes that share one unpack a job's files over each other
        node = [f"--address=127.0.0.1:{self.port}", f"--temp-dir={self.folder / 'node'}"]
        self._start_node("node", node, self.ports[5:])

    def _start_node(self, name, arguments, ports):
        names = ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port")
        names += ("metrics-export-port", "node-manager-port")
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--node-ip-address=127.0.0.1"]
        command += ["--num-cpus=1", "--object-store-memory=100000000"]  # two workers need both nodes
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # any free ones: others may have a cluster here
        command += [*arguments, *(f"--{option}={port}" for option, port in zip(names, ports, strict=True))]
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            done = subprocess.run(command, env=self.environment, stdout=file, stderr=file, cwd=self.folder, timeout=90)
        assert done.returncode == 0, log.read_text()

    def stop(self):
        """Let the watchdog end the cluster, and wait for it."""
        self._watchdog.stdin.close()
        self._watchdog.wait(timeout=120)

    def submit(self, *arguments, **changes):
        """Run `thinkvl submit` to its end: (exit code, output)."""
        process = self.begin(*arguments, **changes)
        output, _ = process.communicate(timeout=150)
        return process.returncode, output

    def status(self, job):
        token = {"Authorization": f"Bearer {self.environment['RAY_AUTH_TOKEN']}"}
        return requests.get(f"{self.address}/api/jobs/{job}", headers=token, timeout=20).json()["status"]

    def begin(self, *arguments, address=None, **changes):
        command = [
            sys.executable,
            "-m",
            "rl.cli.main",
            "submit",
            *map(str, arguments),
            "--address",
            address or self.address,
        ]
        return subprocess.Popen(
            command,
            env={k: v for k, v in (self.environment | changes).items() if v is not None},
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def cluster():
    cluster = LocalCluster()
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def recipe(tmp_path):
    """A recipe beside a plug-in with the name of one of our packages, and a task file; data a folder up."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data").mkdir()
    path = tmp_path / "recipes" / "short.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "run"))
    path.with_name("rewards.py").write_text(PLUGIN)
    rows = [{"question": f"How much is {n} + 1?", "answer": str(n + 1)} for n in range(20)]
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "data" / "table.csv").write_text("\n".join(map(str, range(20))))
    for name, text in (("tasks.py", TASKS), ("helper.py", HELPER), ("words.txt", "How much is")):
        path.with_name(name).write_text(text)
    return path


def wait_for(text, process):
    """Read the output of `process` until `text` comes; all that was read."""
    read = ""
    while text not in read:
        line = process.stdout.readline()
        assert line, f"the command ended before {text!r}:\n{read}"
        read += line
    return read


def command(*arguments):
    """Run `thinkvl submit` where no cluster is needed: (exit code, output, seconds)."""
    began = time.monotonic()
    line = [sys.executable, "-m", "rl.cli.main", "submit", *map(str, arguments)]
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.returncode, done.stdout, time.monotonic() - began


def test_a_dead_address(recipe):
    [port] = free_ports(1)
    code, output, seconds = command(recipe, "--address", f"http://127.0.0.1:{port}")
    assert code == 1
    assert output.startswith(f"error: http://127.0.0.1:{port}: cannot connect (connection refused). Is the cluster up")
    assert seconds < 20  # of which Python's imports take most


def test_a_broken_recipe_is_refused_before_anything_is_sent(recipe):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        code, output, _ = command(recipe, "rl.stepz=3", "--address", address)
        assert code == 1
        assert "rl.stepz: no such key; did you mean rl.steps?" in output
        recipe.with_name("rewards.py").unlink()
        code, output, _ = command(recipe, "--address", address)
        assert code == 1
        assert f"error: the recipe names 'rewards.py', but there is no such file in {recipe.parent}" in output
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_run_on_two_nodes(cluster, recipe, tmp_path):
    code, output = cluster.submit(recipe, "rl.steps=1")
    assert code == 0, output
    assert "sending ThinkVL's packages and 7 files of yours" in output
    assert re.search(r"MiB\): \.\./data/rows\.jsonl, \.\./data/table\.csv, helper\.py, rewards\.py, ", output)
    assert "cluster: 2 nodes, 2 CPUs" in output
    assert "one code on all nodes" in output
    assert len(re.findall(r"^rl +1/1 ", output, re.MULTILINE)) == 1  # each line of the log once
    job = re.search(r"submitted job (\S+)", output)[1]
    assert f"job {job} succeeded; results of short" in output
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["instruct", "long_cot", "rl"]
    assert (tmp_path / "run" / "export" / "config.json").exists()
    rewards = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("brevity" in key for row in rewards for key in row), rewards


def test_a_job_that_fails(cluster, recipe):
    """The plug-in fails when it is loaded, which only happens on the cluster."""
    recipe.with_name("rewards.py").write_text("raise RuntimeError('no good')")
    code, output = cluster.submit(recipe)
    assert code == 1
    assert "rewards.py:1 failed: RuntimeError: no good" in output
    assert re.search(r"^error: job short-\w+ failed with exit code 1$", output, re.MULTILINE)
    assert "Traceback" not in output


def test_ctrl_c_leaves_the_job_running_and_the_printed_command_stops_it(cluster, recipe):
    process = cluster.begin(recipe, "instruct.steps=100000")
    try:
        output = wait_for("one code on all nodes", process)
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130, rest
    job = re.search(r"submitted job (\S+)", output)[1]
    assert f"no longer following; the job {job} goes on" in rest
    assert cluster.status(job) == "RUNNING"
    stop = re.search(r"^ +stop +(ray job stop .*)$", output, re.MULTILINE)[1]
    subprocess.run(stop, shell=True, env=cluster.environment, check=True, capture_output=True, timeout=60)
    assert cluster.status(job) == "STOPPED"


@pytest.mark.parametrize("token", [None, "another-token"])
def test_a_missing_and_a_wrong_token(cluster, recipe, token):
    mode = "token" if token else "disabled"
    code, output = cluster.submit(recipe, RAY_AUTH_TOKEN=token, RAY_AUTH_MODE=mode)
    assert code == 1
    assert "the cluster requires a token, and the one here is missing or wrong" in output
    assert "Traceback" not in output


def test_the_port_of_ray_itself_is_told_from_the_dashboards(cluster, recipe):
    code, output = cluster.submit(recipe, address=f"http://127.0.0.1:{cluster.port}")
    assert code == 1
    assert "the dashboard's port is wanted: 8265 by default" in output
