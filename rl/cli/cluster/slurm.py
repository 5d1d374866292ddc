"""The Slurm script of a run: one Ray over all nodes of the allocation, and `thinkvl run` on the first."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.schema import RunConfig

_SCRIPT = """\
#!/bin/bash
# {name}: written by `thinkvl submit --write`. Start it with `sbatch`, whose options go before those below:
#   sbatch --partition=gpu --time=2-00:00:00 THIS_FILE
# Start it again to continue a run that was stopped: it resumes from its newest checkpoint.
#SBATCH --job-name={name}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
{gpus}#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output={name}-%j.log
set -euo pipefail

# The environment in which this file was written. Every node must see it under the same path.
export PATH={path}:$PATH
cd {folder}
{environment}
# This script runs on the first node of the allocation. Its first address is the one that the other nodes can reach.
head=$(hostname -I | cut -d ' ' -f 1)
port=$((20000 + SLURM_JOB_ID % 10000))
export PYTHONUNBUFFERED=1
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600  # seconds until every node has joined

# Starts Ray on every node, runs the command on the first, and ends Ray with it.
srun --kill-on-bad-exit=1 ray symmetric-run --address "$head:$port" --min-nodes "$SLURM_JOB_NUM_NODES" -- \\
  env RAY_ADDRESS=auto {command}
"""


def slurm_script(
    config: RunConfig,
    recipe: Path,
    overrides: Sequence[str],
    nodes: int,
    gpus: int,
    environment: Sequence[tuple[str, str]],
) -> str:
    """The text of the script. Paths are absolute: the script may be started from any folder."""
    output = Path(config.output_dir).expanduser().absolute()
    arguments = [str(recipe.resolve()), *overrides, f"output_dir={output}"]
    return _SCRIPT.format(
        name=job_name(config.name),
        nodes=nodes,
        gpus=f"#SBATCH --gpus-per-node={gpus}\n" if gpus else "",
        path=shlex.quote(str(Path(sys.executable).parent)),
        folder=shlex.quote(str(Path.cwd())),
        environment="".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment),
        command=shlex.join(["thinkvl", "run", *arguments]),
    )


def job_name(name: str) -> str:
    """A run's name as Slurm and Kubernetes take it: lower case letters, digits and dashes, at most 40."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "thinkvl"
