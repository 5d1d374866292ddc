"""Seconds to import each package, each in a fresh process, and of `thinkvl --help`; the median of several.

    python benchmarks/imports.py [--quick] [--json FILE]

`processor` is the time of the processor alone, which other programs on the machine do not lengthen.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.5  # seconds of `thinkvl --help`
IMPORTS = (
    "configs.schema",
    "configs.load",
    "rewards.scorer",
    "rollouts.types",
    "rl.doctor.table",
    "rl.algorithms.policy_loss",
)
HEAVY = ("kimi_vl", "rollouts.workers.pool", "rl.learner.learner", "rl.pipeline")
CODE = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
HELP = "sys.argv = ['thinkvl', '--help']; from rl.cli.main import main; main()"


def measure(code, times):
    """Median wall and processor seconds of a Python process that runs `code`."""
    walls, processors = [], []
    for _ in range(times):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run([sys.executable, "-c", CODE + code], check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        processors.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"wall": statistics.median(walls), "processor": statistics.median(processors)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once each, and none that imports torch")
    parser.add_argument("--times", type=int, default=5, help="processes of each")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    times = 1 if options.quick else options.times
    subprocess.run([sys.executable, "-c", CODE + HELP], check=True, stdout=subprocess.DEVNULL)  # files into the cache
    found = {"python": measure("pass", times), "thinkvl --help": measure(HELP, times)}
    for name in IMPORTS + (() if options.quick else HEAVY):
        found[name] = measure(f"import {name}", times)
    for name, seconds in found.items():
        print(f"{name:<24} {seconds['wall']:6.2f} s  {seconds['processor']:6.2f} s of the processor")
    print(f"goal: thinkvl --help in {GOAL} s")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
