"""`rl.engine_options: {tensor_parallel_size: 2}`: vLLM's processes know our model, our draws and our weight sync."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).with_name("tensor_parallel_job.py")


@pytest.mark.timeout(900)
def test_two_processes_give_the_embedded_engines_completions(checkpoint):
    path = os.pathsep.join([str(JOB.parents[2]), str(JOB.parent)])
    done = subprocess.run(
        [sys.executable, str(JOB), str(checkpoint)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("gaps ")] or [done.stderr[-3000:]]
    assert max(json.loads(line.removeprefix("gaps "))) < 1e-3
