"""A miniature recipe that passes every stage in seconds, run in this process or as the command."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import torch

from configs.load import dump_recipe, load_recipe
from rl.metrics_table import EVALUATION, RL, SUPERVISED, undeclared
from rl.pipeline import run
from rl.run.console import PlainConsole
from rl.run.trackers.jsonl_tracker import read_metrics
from rl.safe_load import load_state
from rollouts.workers.start_ray import start_ray

RECIPE = """
name: mini
seed: 4
output_dir: runs/mini
threads: 1
model:
  path: tiny
  tiny: {hidden_size: 32, num_hidden_layers: 2}
data:
  train:
    - {use: digit_sums, options: {scans: [2]}}
  held_out:
    - {use: digit_sums, split: held_out, options: {scans: [2]}}
stages:
  - {kind: sft, name: instruct, steps: 6, batch_size: 16, save_every: 2,
     optimizer: {name: muon, learning_rate: 2e-3}}
  - {kind: sft, name: long_cot, steps: 4, batch_size: 16, thinking_share: 0.5,
     optimizer: {name: muon, learning_rate: 2e-3, warmup_steps: 2}}
  - kind: rl
    steps: 6
    prompts_per_step: 6
    samples_per_prompt: 4
    minibatches: 2
    workers: 2
    eval_every: 3
    save_every: 2
    sampling: {max_new_tokens: 16}
    loss: {algorithm: grpo}
    optimizer: {name: muon, learning_rate: 1e-3, warmup_steps: 2}
    rewards: [{use: verifier}, {use: format, weight: 0.2}]
    length_reward: {weight: 0.1, warmup_steps: 0}
evaluation: {tasks: 12, validation_tasks: 6, samples: 1, max_new_tokens: 16}
"""


class Mini:
    """Runs the miniature recipe under a folder, as a user would in `folder`."""

    def __init__(self, folder, overrides=()):
        self.folder, self.overrides = folder, list(overrides)
        self.folder.mkdir(parents=True, exist_ok=True)
        (folder / "mini.yaml").write_text(RECIPE)

    @property
    def run_folder(self):
        return self.folder / "runs" / "mini"

    def here(self, *overrides):
        """Run in this process and return what it printed."""
        config = load_recipe(self.folder / "mini.yaml", [*self.overrides, *overrides])
        printed = io.StringIO()
        before = Path.cwd()
        os.chdir(self.folder)
        try:
            run(config, base=self.folder, console=PlainConsole(file=printed, width=200))
        finally:
            os.chdir(before)
        return printed.getvalue()

    def start(self, program=("-m", "rl.cli.main"), **variables):
        """Start the command `thinkvl run` in a session of its own, with more environment variables."""
        command = [sys.executable, *program, "run", "mini.yaml", *self.overrides]
        environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
        environment |= {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        environment |= {"OMP_WAIT_POLICY": "passive", **variables}
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def stop_at(self, stage, step, how):
        """Start the command, send signal `how` once `step` of `stage` is recorded; (exit code, output, steps seen)."""
        process = self.start()
        deadline = time.monotonic() + 400  # a busy machine takes minutes to start Ray
        while time.monotonic() < deadline and process.poll() is None and self.last_step(stage) < step:
            time.sleep(0.002)
        assert process.poll() is None, f"it ended by itself: {process.communicate()[0][-2000:]}"
        if how == signal.SIGKILL:
            process.kill()
        else:
            os.killpg(process.pid, how)  # as a terminal does: to the command and its children
        output, _ = process.communicate(timeout=240)
        return process.returncode, output, self.last_step(stage)

    def last_step(self, stage):
        rows = read_metrics(self.run_folder / "metrics.jsonl", stage=stage)
        return int(rows[-1]["step"]) if rows else -1

    def undeclared_metrics(self):
        """Names in the metrics file that rl/metrics_table.py does not declare, each with its stage."""
        found = set()
        for row in read_metrics(self.run_folder / "metrics.jsonl"):
            stage = row["stage"].partition("/")[0]
            table = {"rl": RL, "validation": EVALUATION, "held_out": EVALUATION}.get(stage, SUPERVISED)
            found |= {(stage, name) for name in undeclared(row.keys() - {"stage", "step", "time"}, table)}
        return found

    def begin_before_rl(self, whole):
        """Start from a whole run's supervised stages, as if the run had been stopped before RL.

        Overrides of this run may only be of keys that the supervised stages do not read.
        """
        self.run_folder.parent.mkdir()
        pages = ("report.html", "stages.html", "examples.html")
        later = ("rl", "export", "summary.json", "curves.png", "tensorboard", *pages)
        shutil.copytree(whole.run_folder, self.run_folder, ignore=shutil.ignore_patterns(*later))
        (self.run_folder / "recipe.yaml").write_text(
            dump_recipe(load_recipe(self.folder / "mini.yaml", self.overrides))
        )
        lines = (self.run_folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        kept = [line for line in lines if json.loads(line)["stage"] not in ("rl", "validation/rl", "held_out/rl")]
        (self.run_folder / "metrics.jsonl").write_text("".join(kept))

    def rollouts(self):
        """The bytes of every file of the rollout log, images aside."""
        return {p.name: p.read_bytes() for p in (self.run_folder / "rl" / "rollouts").iterdir() if p.is_file()}

    def learner(self):
        """The learner's state after the last RL step."""
        return self.checkpoint()["learner"]

    def checkpoint(self):
        """All of the newest checkpoint of RL."""
        [*_, last] = sorted((self.run_folder / "rl" / "checkpoints").glob("*.pt"))
        return load_state(last)


@pytest.fixture(scope="session")
def _cluster():
    """One Ray for all runs in this process: each starts its own workers in it."""
    started = start_ray(4)  # with two learner ranks
    yield
    if started:
        ray.shutdown()


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory, _cluster):
    """(the recipe run to its end without any disturbance, what it printed)."""
    torch.set_num_threads(1)
    mini = Mini(tmp_path_factory.mktemp("whole"))
    return mini, mini.here()


@pytest.fixture
def make_mini(tmp_path, _cluster):
    return lambda *overrides: Mini(tmp_path / "mini", overrides)
