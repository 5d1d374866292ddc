"""`thinkvl run` with `rl.engine: vllm`: a short RL run on an exported checkpoint, whose rollouts vLLM makes."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rl.rollout_log import read_rollouts
from rl.run.trackers.jsonl_tracker import read_metrics

pytestmark = pytest.mark.timeout(900)  # two processes that import vLLM, on a machine that may be busy
ROOT = Path(__file__).parents[2]
RECIPE = """
name: with_vllm
output_dir: run
threads: 1
model: {path: CHECKPOINT}
data:
  train: [{use: digit_sums, options: {scans: [2]}}]
  held_out: [{use: digit_sums, split: held_out, options: {scans: [2]}}]
stages:
  - kind: rl
    engine: vllm
    steps: 3
    prompts_per_step: 4
    samples_per_prompt: 4
    workers: 1
    eval_every: 3
    sampling: {max_new_tokens: 16}
    loss: {algorithm: grpo}
    optimizer: {name: adamw, learning_rate: 1e-3}
    rewards: [{use: verifier}, {use: brevity.py:brevity}]
evaluation: {tasks: 6, validation_tasks: 4, samples: 1, max_new_tokens: 16}
"""


def runs_vllm(process):
    """Whether a process has vLLM's kernels in its memory."""
    try:
        return any("/vllm/_C" in line for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines())
    except OSError:
        return False


@pytest.fixture(scope="module")
def run(checkpoint, tmp_path_factory):
    """(the run's folder, its output, whether a process below it had vLLM's kernels)."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.yaml").write_text(RECIPE.replace("CHECKPOINT", str(checkpoint)))
    shutil.copy(ROOT / "examples" / "reward_file" / "brevity.py", folder)  # random weights answer nothing right
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "rl.cli.main", "run", "recipe.yaml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    seen = False
    while process.poll() is None:
        if not seen:
            seen = any(runs_vllm(child) for child in psutil.Process().children(recursive=True))
        time.sleep(0.5)
    log.close()
    output = (folder / "log").read_text()
    assert process.returncode == 0, output[-3000:]
    return folder / "run", output, seen


def test_vllm_makes_the_rollouts(run):
    folder, _, seen = run
    assert seen, "no worker had vLLM's kernels in its memory"
    assert json.loads((folder / "summary.json").read_text())["stages"][0]["name"] == "rl"


def test_every_publish_is_proven(run):
    folder, _, _ = run
    steps = read_metrics(folder / "metrics.jsonl", stage="rl")
    assert [s["version"] for s in steps] == [1, 2, 3]
    assert all(0 < s["parity_gap"] < 1e-3 for s in steps)
    assert all(s["logprob_gap_max"] < 1e-3 for s in steps), "the learner scores the rollouts as vLLM did"
    assert all(s["rollouts"] == 16 for s in steps)


def test_rollouts_carry_their_versions(run):
    folder, _, _ = run
    rows = list(read_rollouts(folder / "rl" / "rollouts"))
    assert len(rows) == 48
    assert {segment["version"] for row in rows for segment in row["segments"]} == {0, 1, 2}
