"""The whole recipe on real data over several seeds: what each stage added, as a page and as tables.

    make recipe                    # once, to fetch the data
    .venv/bin/python benchmarks/recipe.py [--seeds 0 1 2] [--output runs/recipe] [overrides]

Overrides such as `pretrain.steps=100` go to every run. Everything is resumable: run it again after an interruption.
Writes `OUTPUT/stages.html` and `OUTPUT/tables.md`, prints the tables, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from rl.run.folder import RunFolder
from rl.run.recipe_page import all_rows, markdown, own_rows, shortcomings, write_recipe_page
from rl.run.stage_figures import read_stages

RECIPE = "configs/recipes/real_data.yaml"


def run(seed: int, output: Path, overrides: list[str]) -> RunFolder:
    """Run the recipe with a seed unless it is done; return the run's folder."""
    folder = output / f"seed-{seed}"
    if not (folder / "summary.json").exists():
        command = [sys.executable, "-m", "rl.cli.main", "run", RECIPE, f"output_dir={folder}", f"seed={seed}"]
        subprocess.run([*command, "export=false", *overrides], check=True)
    return RunFolder(folder)


def main() -> None:
    """Run, write the page and the tables, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/recipe"))
    args, overrides = parser.parse_known_args()
    folders = [run(seed, args.output, overrides) for seed in args.seeds]
    runs = [read_stages(folder) for folder in folders]
    write_recipe_page(folders, args.output / "stages.html")
    text = "\n\n".join([markdown(own_rows(runs)), "\n".join(shortcomings(runs)), markdown(all_rows(runs))])
    (args.output / "tables.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}")
    better = {stage.name: sum(bool(run[at].improved) for run in runs) for at, stage in enumerate(runs[0])}
    print(json.dumps({"runs": len(runs), **{f"better/{name}": count for name, count in better.items()}}))


if __name__ == "__main__":
    main()
