"""`thinkvl submit` against a real cluster of two nodes on this machine, which asks for a token."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import psutil
import pytest

MARK = "THINKVL_TEST_CLUSTER"  # in the environment of every process of the cluster, so that all of them are found

RECIPE = """
name: short
output_dir: {output}
threads: 1
model:
  path: tiny
  tiny: {{hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, n_routed_experts: 4,
         moe_intermediate_size: 32, vision_hidden_size: 32, vision_num_hidden_layers: 1}}
data:
  train:
    - {{use: digit_sums, options: {{scans: [2]}}}}
    - {{use: ../data/rows.jsonl}}
  held_out: [{{use: digit_sums, split: held_out, options: {{scans: [2]}}}}]
instruct: {{steps: 3, batch_size: 8}}
long_cot: {{steps: 2, batch_size: 8, thinking_share: 0.5}}
rl:
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
        command += ["--num-cpus=2" if name == "head" else "--num-cpus=1", "--object-store-memory=100000000"]
        command += ["--min-worker-port=0", "--max-worker-port=0"]  # any free ones: others may have a cluster here
        command += [*arguments, *(f"--{option}={port}" for option, port in zip(names, ports, strict=True))]
        log = self.folder / f"{name}.log"
        with log.open("wb") as file:
            done = subprocess.run(command, env=self.environment, stdout=file, stderr=file, cwd=self.folder, timeout=90)
        assert done.returncode == 0, log.read_text()

    def processes(self):
        """Every process that carries this cluster's mark, and no other."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def stop(self):
        for _ in range(20):
            left = self.processes()
            if not left:
                break
            for process in left:
                process.kill()
            psutil.wait_procs(left, timeout=1)
        shutil.rmtree(self.folder, ignore_errors=True)

    def submit(self, *arguments, **changes):
        """Run `thinkvl submit` to its end: (exit code, output)."""
        process = self.begin(*arguments, **changes)
        output, _ = process.communicate(timeout=150)
        return process.returncode, output

    def begin(self, *arguments, address=None, **changes):
        command = [sys.executable, "-m", "rl.cli", "submit", *map(str, arguments), "--address", address or self.address]
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
    """A recipe beside a plug-in with the name of one of our packages, and data a folder up."""
    (tmp_path / "recipes").mkdir()
    (tmp_path / "data").mkdir()
    path = tmp_path / "recipes" / "short.yaml"
    path.write_text(RECIPE.format(output=tmp_path / "run"))
    path.with_name("rewards.py").write_text(PLUGIN)
    rows = [{"question": f"How much is {n} + 1?", "answer": str(n + 1)} for n in range(20)]
    (tmp_path / "data" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_run_on_two_nodes(cluster, recipe, tmp_path):
    code, output = cluster.submit(recipe)
    print(output)
    assert code == 0, output
