"""The quickstart over several seeds, and two controls that start from the model that entered RL.

    python benchmarks/quickstart.py [--seeds 0 1 2] [--output runs/benchmark] [--quick]

For each seed: the quickstart itself; `sft`: long-CoT SFT on the same worked solutions, continued for RL's seconds;
`shuffled`: RL for as many steps with rewards permuted over each step's rollouts. Everything is resumable: run it again
after an interruption. Prints a table of means over seeds (of seconds, medians) and writes it to `OUTPUT/table.md`,
draws `OUTPUT/comparison.png`, ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from rl.run.trackers.jsonl_tracker import read_metrics

RECIPE = "configs/recipes/quickstart.yaml"
ARMS = {"quickstart": "rl", "sft": "long_cot", "shuffled": "rl"}  # arm -> the stage that it ends with
FIGURES = {"greedy_accuracy": 3, "sampled_accuracy": 3, "thinking_share": 2, "mean_tokens": 1}  # and their decimals
GAINS = ("greedy_accuracy", "sampled_accuracy")
QUICK = {
    "reading": ["reading.steps=2"],
    "long_cot": ["long_cot.steps=3"],
    "rl": ["rl.steps=2", "rl.prompts_per_step=4"],
    "": ["evaluation.tasks=20", "evaluation.validation_tasks=10"],
}

Stages = dict[str, dict[str, float]]


def run(folder: Path, *overrides: str) -> Stages:
    """Run the recipe into `folder` unless it is done there; return its stages by name."""
    if not (folder / "summary.json").exists():
        command = [sys.executable, "-m", "rl.cli.main", "run", RECIPE, f"output_dir={folder}", *overrides]
        subprocess.run(command, check=True)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {stage["name"]: stage for stage in summary["stages"]} | {"": {"seconds": summary["seconds"]}}


def short(quick: bool, *stages: str) -> list[str]:
    """The overrides of `--quick` for the stages that a run has."""
    return [o for stage in (*stages, "") for o in QUICK[stage]] if quick else []


def main_arm(seed: int, output: Path, *, quick: bool) -> Stages:
    """The quickstart itself."""
    return run(output / f"seed-{seed}", f"seed={seed}", *short(quick, "reading", "long_cot", "rl"))


def controls(seed: int, output: Path, *, steps: int, quick: bool) -> dict[str, Stages]:
    """The two controls from the model that entered RL: SFT for `steps` more, and RL with shuffled rewards."""
    # The same seed, so the same worked solutions and the same sums in RL.
    warm = output / f"seed-{seed}" / "long_cot" / "model"
    start = [f"seed={seed}", f"model.path={warm}", "reading=null", "export=false"]
    sft = run(output / f"seed-{seed}-sft", *start, "rl=null", *short(quick), f"long_cot.steps={steps}")
    shuffled = run(
        output / f"seed-{seed}-shuffled", *start, "long_cot=null", "rl.shuffle_rewards=true", *short(quick, "rl")
    )
    return {"sft": sft, "shuffled": shuffled}


def continued_steps(output: Path, mains: dict[int, Stages]) -> int:
    """SFT steps that fit into RL's seconds, by medians over the seeds: other work may have slowed one seed."""
    steps = len(read_metrics(output / f"seed-{next(iter(mains))}" / "metrics.jsonl", stage="long_cot"))
    rl, sft = (statistics.median([m[stage]["seconds"] for m in mains.values()]) for stage in ("rl", "long_cot"))
    return max(2, round(steps * rl / sft))


def mean(values: list[float], digits: int) -> str:
    """Mean and, in brackets, the range."""
    found, low, high = (f"{value:.{digits}f}" for value in (statistics.mean(values), min(values), max(values)))
    return found if low == high else f"{found} ({low}-{high})"


def table(results: list[dict[str, Stages]]) -> str:
    """Markdown rows: every stage of the main run, then the controls."""
    rows = [(f"quickstart, after {name}", "quickstart", name) for name in ("reading", "long_cot", "rl")]
    rows += [
        ("control: long-CoT SFT for RL's seconds", "sft", "long_cot"),
        ("control: RL, shuffled rewards", "shuffled", "rl"),
    ]
    lines = ["| model | greedy | sampled | thinking | tokens | seconds |", "|---|---|---|---|---|---|"]
    for title, arm, stage in rows:
        cells = [mean([r[arm][stage][key] for r in results], digits) for key, digits in FIGURES.items()]
        seconds = statistics.median([r[arm][stage]["seconds"] for r in results])
        lines.append(f"| {title} | {' | '.join(cells)} | {seconds:.0f} |")
    return "\n".join(lines)


def draw(results: list[dict[str, Stages]], path: Path) -> None:
    """Bars of the four models that the comparison is about: means, with the range over the seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    models = {
        "50 worked solutions (SFT)": ("quickstart", "long_cot"),
        "then RL on answers alone": ("quickstart", "rl"),
        "then more SFT, as many seconds": ("sft", "long_cot"),
        "then RL, rewards shuffled": ("shuffled", "rl"),
    }
    figure, axis = plt.subplots(figsize=(9, 3.8), layout="constrained")
    sides = (("greedy_accuracy", "greedy", "#e6550d", -0.2), ("sampled_accuracy", "sampled", "#9ecae1", 0.2))
    for key, label, color, shift in sides:
        found = [[r[arm][stage][key] for r in results] for arm, stage in models.values()]
        means = [statistics.mean(values) for values in found]
        ranges = [[m - min(v) for m, v in zip(means, found, strict=True)]]
        ranges += [[max(v) - m for m, v in zip(means, found, strict=True)]]
        places = [place + shift for place in range(len(models))]
        axis.bar(places, means, 0.4, yerr=ranges, capsize=3, ecolor="#555555", label=label, color=color)
        for place, mean_value, high in zip(places, means, ranges[1], strict=True):
            axis.text(place, mean_value + high + 0.02, f"{mean_value:.2f}", ha="center", fontsize=9)
    axis.set_xticks(range(len(models)), [name.replace(" (", "\n(").replace(", ", ",\n") for name in models])
    axis.set(ylim=(0, 1.1), ylabel="accuracy, held-out sums")
    axis.legend(frameon=False, loc="upper right", ncols=2)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run, print the table, write it, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--quick", action="store_true", help="two steps a stage and one seed, to see that it works")
    args = parser.parse_args()
    output = args.output / "quick" if args.quick else args.output
    seeds = args.seeds[:1] if args.quick else args.seeds
    mains = {seed: main_arm(seed, output, quick=args.quick) for seed in seeds}
    steps = continued_steps(output, mains)
    results = [{"quickstart": mains[seed], **controls(seed, output, steps=steps, quick=args.quick)} for seed in seeds]
    text = table(results)
    (output / "table.md").write_text(text + "\n", encoding="utf-8")
    draw(results, output / "comparison.png")
    print(text)
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {version('torch')}")
    ends = {
        f"{arm}/{figure}": statistics.mean([r[arm][stage][figure] for r in results])
        for arm, stage in ARMS.items()
        for figure in GAINS
    }
    gains = {
        f"gain/{figure}": statistics.mean(
            [r["quickstart"]["rl"][figure] - r["quickstart"]["long_cot"][figure] for r in results]
        )
        for figure in GAINS
    }
    seconds = statistics.median([r["quickstart"][""]["seconds"] for r in results])
    print(json.dumps({"runs": len(results), **gains, "median_seconds": seconds, **ends}))


if __name__ == "__main__":
    main()
