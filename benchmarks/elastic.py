"""The quickstart's RL stage while its processes are killed, a rollout worker and a learner rank in turn.

    python benchmarks/elastic.py [--every 60] [--output runs/elastic] [--quick]

The supervised stages run once. Then RL runs twice from their model, with two workers and two learner ranks:
undisturbed, and with a checkpoint a step and a SIGKILL every `--every` seconds. Prints the effective-training-time
ratio (seconds of the undisturbed run over those of the other, for the same steps), and whether both end in the same
weights; ends with one line of JSON. A run that is finished is not repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil

from rl.run.trackers.jsonl_tracker import read_metrics

RECIPE = "configs/recipes/quickstart.yaml"
ELASTIC = ["reading=null", "long_cot=null", "export=false", "rl.ranks={count: 2, restarts: 100}"]
OFTEN = "rl.save_every=1"  # checkpoints are written in the background; the undisturbed run keeps the recipe's
QUICK = ["rl.steps=4", "rl.prompts_per_step=4", "evaluation.tasks=20", "evaluation.validation_tasks=10"]
QUICK_START = ["reading.steps=2", "long_cot.steps=3", "evaluation.tasks=20"]
VICTIMS = ("ray::RolloutActor", "ray::RankActor")  # as Ray names their processes


def run(folder: Path, *overrides: str, every: float | None = None, most: float = math.inf) -> Counter[str]:
    """Run the recipe into `folder` unless it is done there; kill a process `every` so many seconds, at most `most`.

    Returns the kills. The first comes after the first step, so that there is something to disturb.
    """
    kills: Counter[str] = Counter()
    if (folder / "summary.json").exists():
        return kills
    process = subprocess.Popen([sys.executable, "-m", "rl.cli.main", "run", RECIPE, f"output_dir={folder}", *overrides])
    victims, due = itertools.cycle(VICTIMS), None
    while process.poll() is None:
        time.sleep(0.05)
        stepped = every is not None and bool(read_metrics(folder / "metrics.jsonl", stage="rl"))
        if not stepped or (folder / "rl" / "stage.json").exists():
            continue
        if due is None:
            due = time.monotonic() + (every or 0.0)
        elif time.monotonic() > due and kills.total() < most:
            kind = next(victims)
            kills[kind] += kill_one(process.pid, kind)
            due += every or 0.0
    if process.returncode:
        raise SystemExit(f"the run in {folder} ended with exit code {process.returncode}")
    return kills


def kill_one(driver: int, kind: str) -> int:
    """Send SIGKILL to a process of the run; the number of processes that got it, since none may be there."""
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(driver).children(recursive=True):
            with contextlib.suppress(psutil.Error, IndexError):
                if child.cmdline()[0].startswith(kind):
                    os.kill(child.pid, signal.SIGKILL)
                    return 1
    return 0


def stage_of(folder: Path) -> dict[str, Any]:
    """The record of RL."""
    return json.loads((folder / "rl" / "stage.json").read_text(encoding="utf-8"))


def main() -> None:
    """Run the stages, print the ratio, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two kills")
    parser.add_argument("--output", type=Path, default=Path("runs/elastic"))
    parser.add_argument("--quick", action="store_true", help="a few steps and one kill of each, to see that it works")
    args = parser.parse_args()
    output, every = (args.output / "quick", 2.0) if args.quick else (args.output, args.every)
    run(output / "start", "rl=null", "export=false", *(QUICK_START if args.quick else []))
    start = [f"model.path={(output / 'start' / 'long_cot' / 'model').resolve()}", *ELASTIC]
    start += QUICK if args.quick else []
    run(output / "undisturbed", *start)
    kills = run(output / "disturbed", *start, OFTEN, every=every, most=len(VICTIMS) if args.quick else math.inf)
    calm, disturbed = (stage_of(output / name) for name in ("undisturbed", "disturbed"))
    ratio = calm["seconds"] / disturbed["seconds"]
    same = calm["weights"] == disturbed["weights"]
    print(f"undisturbed {calm['seconds']:.0f} s, disturbed {disturbed['seconds']:.0f} s: ratio {ratio:.3f}")
    print(f"killed: {dict(kills)}; the same weights: {same}")
    found = {"ratio": ratio, "undisturbed_s": calm["seconds"], "disturbed_s": disturbed["seconds"], "same": same}
    print(json.dumps(found | {f"killed {kind.removeprefix('ray::')}": kills[kind] for kind in VICTIMS}))


if __name__ == "__main__":
    main()
