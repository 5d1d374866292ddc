"""Every algorithm of the learner on the quickstart's task, from one warm start.

    python benchmarks/compare_algorithms.py [--seeds 0 1 2] [--steps 40] [--only ppo grpo] [--output FOLDER] [--quick]

The warm start is the quickstart's model after long-CoT SFT, made once. From it each algorithm runs for `--steps` RL
steps a seed, with the quickstart's sampling and optimizer and the algorithm's own parts; PPO takes twelve minibatches
a step, at a lower learning rate. Everything is resumable: run it again after an interruption. Prints a table of means
over seeds, writes it to `OUTPUT/algorithms.md` and the curves to `OUTPUT/algorithms.png`, and ends with one line of
JSON. For PPO it also tells how much of the returns' variance the critic explains on held-out questions.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from configs.algorithms import ALGORITHMS
from configs.load import load_recipe
from kimi_vl import load_model, load_processor
from rewards.scorer import Scorer
from rl.checkpoint import load_checkpoint
from rl.collect import make_groups, make_samples, sample_metrics
from rl.evaluate import HELD_OUT_SEED, sample_and_score
from rl.learner import Learner, LearnerConfig
from rl.metrics import read_metrics
from rl.run import run
from rollouts.engines.transformers import TransformersEngine
from rollouts.prompts import PromptRenderer
from rollouts.tasks.mixture import held_out
from rollouts.tokens import stop_and_barred_ids
from rollouts.workers import start_ray

RECIPE = "configs/recipes/quickstart.yaml"
# A critic needs more than one update a step, and the clip is made for several; each is then smaller.
OVERRIDES = {
    "ppo": [
        "rl.minibatches=12",
        "rl.optimizer.learning_rate=5e-5",
        "rl.loss.critic={value_learning_rate: 1e-3}",
    ]
}
MINUTES = 3
SMOOTH = 5  # steps, of the curves
QUICK = ["evaluation={tasks: 10, validation_tasks: 5, max_new_tokens: 16}"]
QUICK_WARM = ["instruct.steps=2", "long_cot.steps=3"]
QUICK_ALGORITHMS = ["kimi_k15", "gspo", "ppo"]

Stage = dict[str, float]


def stages(folder: Path, overrides: list[str]) -> dict[str, Stage]:
    """Run the recipe into `folder` unless it is done there; return its stages by name."""
    if not (folder / "summary.json").exists():
        print(f"-- {folder}", flush=True)
        run(load_recipe(RECIPE, [f"output_dir={folder}", *overrides]), base=Path.cwd(), console=Console())
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return {stage["name"]: stage for stage in summary["stages"]}


def rl_overrides(name: str, seed: int, warm: Path, *, steps: int, quick: bool) -> list[str]:
    """The quickstart's RL stage alone, from the warm start, by another algorithm."""
    given = ["instruct=null", "long_cot=null", "export=false", f"model.path={warm / 'long_cot' / 'model'}"]
    given += [f"seed={seed}", f"rl.loss={{algorithm: {name}}}", *OVERRIDES.get(name, [])]
    given += [f"rl.steps={steps}", f"rl.save_every={max(1, steps // 2)}"]
    return [*given, *QUICK, "rl.prompts_per_step=12", "rl.eval_every=2"] if quick else given


def critic_on_held_out(folder: Path, warm: Path, *, questions: int, samples: int = 4) -> float:
    """Explained variance of a PPO run's critic on sampled answers of its policy to held-out questions."""
    config = load_recipe(folder / "recipe.yaml")
    assert config.rl is not None
    state, _ = load_checkpoint(folder / "rl" / "checkpoints")
    path = str(warm / "long_cot" / "model")
    processor = load_processor(path)
    stop, barred = stop_and_barred_ids(path, processor)
    learner_config = LearnerConfig(
        loss=config.rl.loss,
        optimizer=config.rl.optimizer,
        temperature=config.rl.sampling.temperature,
        total_steps=config.rl.steps,
        max_new_tokens=config.rl.sampling.max_new_tokens,
    )
    learner = Learner(load_model(path), learner_config, barred_ids=barred)
    learner.load_state_dict(state["learner"])
    engine = TransformersEngine(load_model(path), stop_ids=stop, barred_ids=barred)
    engine.load_weights(learner.weights(), version=learner.version)
    tasks = held_out(config.data.held_out, limit=questions, seed=HELD_OUT_SEED, base=Path.cwd())
    prompts, _ = PromptRenderer(processor, max_prompt_tokens=config.data.max_prompt_tokens).render_all(tasks)
    with Scorer(config.rl.rewards, base=Path.cwd()) as scorer:
        scored = sample_and_score(
            engine.generate,
            lambda ids: processor.tokenizer.decode(ids, skip_special_tokens=True),
            scorer,
            prompts,
            sampling=config.rl.sampling,
            n=samples,
            seed=HELD_OUT_SEED,
        )
    groups = make_groups(prompts, scored)
    return sample_metrics(make_samples(groups, config.rl, learner.annotate(groups)))["explained_variance"]


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
        steps, values = curve(runs, "validation", "sampled_accuracy")
        axes[1].plot(steps, values, "o", ms=3, **style)
    axes[0].set(title=f"rollouts, mean over {SMOOTH} steps", xlabel="RL step", ylabel="accuracy")
    axes[1].set(title="validation, sampled", xlabel="RL step")
    axes[1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def spread(values: list[float]) -> str:
    """Mean and, in brackets, the range."""
    return f"{statistics.mean(values):.3f} ({min(values):.3f}-{max(values):.3f})"


def table(before: Stage, after: dict[str, list[Stage]]) -> str:
    """Markdown: the warm start, then a row an algorithm."""
    lines = ["| model | greedy | sampled | thinks | tokens | seconds of RL |", "|---|---|---|---|---|---|"]
    lines.append(
        f"| warm start | {before['greedy_accuracy']:.3f} | {before['sampled_accuracy']:.3f} | "
        f"{before['thinking_share']:.2f} | {before['mean_tokens']:.1f} | |"
    )
    for name, runs in after.items():
        greedy, sampled = (spread([r[key] for r in runs]) for key in ("greedy_accuracy", "sampled_accuracy"))
        thinks, tokens, seconds = (
            statistics.mean([r[key] for r in runs]) for key in ("thinking_share", "mean_tokens", "seconds")
        )
        lines.append(f"| {name} | {greedy} | {sampled} | {thinks:.2f} | {tokens:.1f} | {seconds:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Run, print the table, write table and picture, and end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", nargs="+", choices=list(ALGORITHMS), help="these alone")
    parser.add_argument("--output", type=Path, default=Path("runs/compare"))
    parser.add_argument("--quick", action="store_true", help="two steps, one seed, three algorithms")
    args = parser.parse_args()
    output, seeds, steps = args.output, args.seeds, args.steps
    names = args.only or (QUICK_ALGORITHMS if args.quick else list(ALGORITHMS))
    if args.quick:
        output, seeds, steps = output / "quick", seeds[:1], 2
    began = time.monotonic()
    torch.set_num_threads(1)
    start_ray(2)  # once for all runs
    warm = (output / "warm-start").resolve()
    before = stages(warm, ["rl=null", "export=false", *([*QUICK, *QUICK_WARM] if args.quick else [])])["long_cot"]
    after: dict[str, list[Stage]] = {}
    folders: dict[str, list[Path]] = {}
    for name in names:
        folders[name] = [output / f"steps-{steps}" / f"{name}-seed-{seed}" for seed in seeds]
        after[name] = [
            stages(folder, rl_overrides(name, seed, warm, steps=steps, quick=args.quick))["rl"]
            for seed, folder in zip(seeds, folders[name], strict=True)
        ]
    text = table(before, after)
    print(text)
    (output / "algorithms.md").write_text(text + "\n", encoding="utf-8")
    plot(folders, output / "algorithms.png")
    gains = {
        f"{name}/{key}_gain": statistics.mean([r[f"{key}_accuracy"] - before[f"{key}_accuracy"] for r in runs])
        for name, runs in after.items()
        for key in ("greedy", "sampled")
    }
    critic = [critic_on_held_out(f, warm, questions=20 if args.quick else 200) for f in folders.get("ppo", [])]
    critic = [value for value in critic if math.isfinite(value)]  # of equal rewards, none
    slow = sorted({name for name, runs in after.items() for r in runs if r["seconds"] > 60 * MINUTES})
    print(
        json.dumps(
            {
                "runs": len(seeds),
                "steps": steps,
                "critic_explained_variance": statistics.median(critic) if critic else None,
                "over_three_minutes": slow,
                "seconds": round(time.monotonic() - began),
                **{name: round(value, 4) for name, value in gains.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
