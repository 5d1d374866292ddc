"""Every algorithm of the learner on handwritten sums, from one warm start.

    python benchmarks/compare_algorithms.py [--seeds 0 1 2] [--steps 24] [--only ppo grpo] [--output FOLDER] [--quick]

The warm start is the model of `plentiful_solutions.yaml` after long-CoT SFT, made once. From it each algorithm runs
`--steps` RL steps a seed: the same tasks, sampling and optimizer, each with its own advantages, loss and clip. A step
has 64 prompts with 8 completions each and four updates, so ratios leave 1 and clips count (PPO: see OVERRIDES). Budgets
are steps, not seconds, so a busy machine makes the same table; processor seconds are counted beside it. Everything is
resumable: run it again after an interruption. The table (means over seeds) and the curves are renewed after each run,
in `OUTPUT/algorithms.md` and `OUTPUT/algorithms.png`; the last line is JSON. For PPO it also prints the figures of
`critic.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import threading
from pathlib import Path

import numpy as np
import psutil  # comes with accelerate
import torch
from critic import critic_figures

from configs.algorithms import ALGORITHMS
from configs.errors import ConfigError
from configs.load import load_recipe
from rl.pipeline import run
from rl.run.console import PlainConsole
from rl.run.trackers.jsonl_tracker import read_metrics
from rollouts.workers.start_ray import start_ray

RECIPE = "benchmarks/plentiful_solutions.yaml"
EVALUATION = ["evaluation={tasks: 400, validation_tasks: 200, samples: 4, max_new_tokens: 80}"]
SETUP = [
    "rl.prompts_per_step=64",
    "rl.minibatches=4",
    "rl.eval_every=8",
    "rl.save_every=8",
    "rl.optimizer={name: adamw, learning_rate: 2e-4, warmup_steps: 8, schedule: linear, final_fraction: 0.1}",
]
# What an algorithm needs beside its own defaults, and why.
OVERRIDES: dict[str, list[str]] = {
    # Dynamic sampling would give DAPO more completions in a step than the others have.
    "dapo": ["rl.task_sampler.name=uniform"],
    # The baseline is the critic, not the group, so each prompt gets one completion. A critic learns what makes prompts
    # hard from many of them; 384 a step fit in three minutes. Updates have 32 completions, because the critic has more
    # to learn than the policy. An untrained critic only adds noise, so the policy waits for a sixth of the steps.
    # Rewards are 0 or 1: a value clip of 1 is no clip, and one of 0.2 would slow the critic while the policy improves.
    "ppo": [
        "rl.prompts_per_step=384",
        "rl.samples_per_prompt=1",
        "rl.minibatches=12",
        "rl.eval_every=4",
        "rl.loss={algorithm: ppo, critic: {pretrain_steps: 4, value_learning_rate: 1e-3, value_clip: 1.0}}",
    ],
}
MINUTES = 3
SMOOTH = 3  # steps, of the curves
QUICK = ["evaluation={tasks: 10, validation_tasks: 5, max_new_tokens: 16}"]
QUICK_WARM = ["instruct.steps=2", "long_cot.steps=3"]
QUICK_ALGORITHMS = ["kimi_k15", "ppo"]

Stage = dict[str, float]


class CpuMeter:
    """Processor seconds of this process and all below it (Ray's too), added up in a file, so that a run may be resumed.

    A process is read once a second; what it does after its last reading is lost.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._stop = path, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> CpuMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        before = float(self._path.read_text()) if self._path.exists() else 0.0
        first = _processor_seconds()
        last = dict(first)
        while not self._stop.wait(1.0):
            last |= _processor_seconds()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(str(before + sum(value - first.get(key, 0.0) for key, value in last.items())))


def _processor_seconds() -> dict[tuple[int, float], float]:
    """User and system seconds of this process and its descendants, by pid and start."""
    found = {}
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            found[process.pid, process.create_time()] = times.user + times.system
    return found


def stages(folder: Path, overrides: list[str]) -> dict[str, Stage]:
    """Run the recipe into `folder` unless it is done there; return its stages by name, with processor seconds."""
    meter = folder.parent / f"{folder.name}.cpu"
    if not (folder / "summary.json").exists():
        print(f"-- {folder}", flush=True)
        with CpuMeter(meter):
            run(load_recipe(RECIPE, [f"output_dir={folder}", *overrides]), base=Path.cwd(), console=PlainConsole())
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    cpu = float(meter.read_text()) if meter.exists() else math.nan
    return {stage["name"]: {**stage, "cpu": cpu} for stage in summary["stages"]}


def rl_overrides(name: str, seed: int, warm: Path, *, steps: int, quick: bool) -> list[str]:
    """The recipe's RL stage alone, from the warm start, by another algorithm."""
    given = ["instruct=null", "long_cot=null", "export=false", f"model.path={warm / 'long_cot' / 'model'}"]
    given += [f"seed={seed}", *EVALUATION, *SETUP, f"rl.loss={{algorithm: {name}}}", *OVERRIDES.get(name, [])]
    given += [f"rl.steps={steps}"]
    return [*given, *QUICK, "rl.prompts_per_step=12", "rl.eval_every=2"] if quick else given


def curve(folders: list[Path], stage: str, name: str) -> tuple[list[int], np.ndarray]:
    """Steps, and the mean over runs of a metric."""
    runs = [{row["step"]: row[name] for row in read_metrics(f / "metrics.jsonl", stage=stage)} for f in folders]
    steps = sorted(set.intersection(*(set(r) for r in runs)))
    return steps, np.array([statistics.mean([r[s] for r in runs]) for s in steps])


def plot(folders: dict[str, list[Path]], path: Path) -> None:
    """Accuracy of the rollouts, and greedy accuracy on validation tasks, over the steps; a line an algorithm."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
    for index, (name, runs) in enumerate(folders.items()):
        steps, values = curve(runs, "rl", "accuracy")
        width = min(SMOOTH, len(values))
        smooth = np.convolve(values, np.ones(width) / width, mode="valid")
        style = {"label": name, "color": plt.colormaps["tab10"](index), "ls": "--" if index % 2 else "-"}
        axes[0].plot(steps[width - 1 :], smooth, **style)
        steps, values = curve(runs, "validation/rl", "sampled_accuracy")
        axes[1].plot(steps, values, "o", ms=3, **style)
    axes[0].set(title=f"rollouts, mean over {SMOOTH} steps", xlabel="RL step", ylabel="accuracy")
    axes[1].set(title="validation, sampled", xlabel="RL step")
    axes[1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def mean_of(runs: list[Stage], key: str) -> float:
    """Mean of a figure over seeds."""
    return statistics.mean([r[key] for r in runs])


def explained_while_training(folder: Path) -> float:
    """The critic's explained variance on each step's new prompts before it trains on them; mean of the last third."""
    rows = read_metrics(folder / "metrics.jsonl", stage="rl")
    known = [row["explained_variance"] for row in rows[-max(1, len(rows) // 3) :]]
    return float(np.mean([math.nan if value is None else value for value in known]))  # null where all returns are equal


def critics(folders: list[Path], *, questions: int) -> dict[str, float | None]:
    """Medians over PPO's runs of the critics' figures, by name. Prints the figures of each run."""
    found = [{"new/explained": explained_while_training(f), **critic_figures(f, questions=questions)} for f in folders]
    for folder, figures in zip(folders, found, strict=True):
        print(f"critic of {folder.name}: {', '.join(f'{key} {value:.3f}' for key, value in figures.items())}")
    finite = {key: [f[key] for f in found if math.isfinite(f[key])] for key in (found[0] if found else ())}
    return {f"critic/{key}": round(statistics.median(v), 3) if v else None for key, v in finite.items()}


def spread(values: list[float]) -> str:
    """Mean and, in brackets, the range."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def table(before: Stage, after: dict[str, list[Stage]]) -> str:
    """Markdown: the warm start, then a row an algorithm."""
    columns = ("model", "seeds", "sampled", "greedy", "thinks", "tokens", "seconds", "CPU seconds")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines.append(
        f"| warm start | | {before['sampled_accuracy']:.3f} | {before['greedy_accuracy']:.3f} | "
        f"{before['thinking_share']:.2f} | {before['mean_tokens']:.1f} | | |"
    )
    for name, runs in after.items():
        sampled, greedy = (spread([r[key] for r in runs]) for key in ("sampled_accuracy", "greedy_accuracy"))
        thinks, tokens, seconds, cpu = (
            mean_of(runs, key) for key in ("thinking_share", "mean_tokens", "seconds", "cpu")
        )
        cells = (name, len(runs), sampled, greedy, f"{thinks:.2f}", f"{tokens:.1f}", f"{seconds:.0f}", f"{cpu:.0f}")
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print the table, write table and picture, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--only", nargs="+", choices=list(ALGORITHMS), help="these alone")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"))
    parser.add_argument("--quick", action="store_true", help="a minute: two algorithms, five steps")
    args = parser.parse_args()
    output, seeds, steps = args.output, args.seeds, args.steps
    names = args.only or (QUICK_ALGORITHMS if args.quick else list(ALGORITHMS))
    if args.quick:
        output, seeds, steps = output / "quick", seeds[:1], 5
    warm = (output / "warm-start").resolve()
    try:
        for name in names:  # before the first hour, not after it
            load_recipe(RECIPE, rl_overrides(name, seeds[0], warm, steps=steps, quick=args.quick))
    except ConfigError as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    start_ray(2)  # once for all runs
    tiny = [*QUICK, *QUICK_WARM] if args.quick else []
    before = stages(warm, ["rl=null", "export=false", *EVALUATION, *tiny])["long_cot"]
    after: dict[str, list[Stage]] = {}
    folders: dict[str, list[Path]] = {}
    for seed in seeds:  # one seed of all algorithms first
        for name in names:
            folder = output / f"steps-{steps}" / f"{name}-seed-{seed}"
            stage = stages(folder, rl_overrides(name, seed, warm, steps=steps, quick=args.quick))["rl"]
            after.setdefault(name, []).append(stage)
            folders.setdefault(name, []).append(folder)
            (output / "algorithms.md").write_text(table(before, after) + "\n", encoding="utf-8")
            plot(folders, output / "algorithms.png")
    print(table(before, after))
    gains = {
        f"{name}/{key}_gain": round(
            statistics.mean([r[f"{key}_accuracy"] - before[f"{key}_accuracy"] for r in runs]), 4
        )
        for name, runs in after.items()
        for key in ("sampled", "greedy")
    }
    sampled = [value for key, value in gains.items() if key.endswith("sampled_gain")]
    most = max(r["seconds"] for runs in after.values() for r in runs)
    summary = {
        "runs": len(seeds),
        "steps": steps,
        "algorithms_improved": sum(value > 0 for value in sampled),
        "algorithms": len(sampled),
        "least_sampled_gain": min(sampled),
        **critics(folders.get("ppo", []), questions=20 if args.quick else 800),
        "most_seconds": round(most),
        "most_cpu_seconds": round(max(r["cpu"] for runs in after.values() for r in runs)),
        "within_three_minutes": bool(most <= 60 * MINUTES),
    }
    print(json.dumps({**summary, **gains}))


if __name__ == "__main__":
    main()
