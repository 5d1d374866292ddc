"""RL end to end beside TRL's GRPOTrainer: seconds a step, and seconds to a held-out accuracy.

    python benchmarks/end_to_end.py [--model FOLDER] [--gain 0.5] [--quick]

Both sides start from the quickstart's model before RL and train on the same tasks with images in the same order:
sampling, batch, reward, GRPO loss, optimizer and learning rates are those of the recipe's RL stage. A step is whole:
rollouts, rewards, update, and on our side weight sync and log. Each side is a process of its own and the sides take
turns, step by step; nothing else runs meanwhile. Our learner takes part with each number of threads; TRL first tries
its sizes of micro-batches and numbers of threads and keeps the fastest. After TRL's first step our learner computes the
gradient of the same rollouts: the two must agree. Held-out tasks are sampled from all sides' weights by one engine,
outside of the time that is counted. Ends when all are better than the warm model by `--gain`, or with the last step.
Prints a table and one line of JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil  # comes with accelerate
import torch
from trl_trainer import Job, receive
from trl_trainer import serve as serve_trl

from configs.load import load_recipe
from configs.model import ModelConfig
from configs.rewards import RewardConfig
from configs.schema import RunConfig
from kimi_vl import create_tiny_checkpoint, load_model, load_processor
from kimi_vl.family import stop_and_barred_ids
from rewards.types import Task
from rl.learner.skipped_updates import SkippedUpdates
from rl.run.console import PlainConsole
from rl.run.context import open_context
from rl.run.evaluate import HELD_OUT_SEED
from rl.run.folder import RunFolder
from rl.run.scoring import open_scorer
from rl.stages.open_learner import open_rl_learner
from rl.stages.rl_stage import build_loop
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.sources.scoring import accuracy
from rollouts.tasks.mixture import held_out
from rollouts.tasks.prompts import PromptRenderer

RECIPE = "configs/recipes/quickstart.yaml"
TOLERANCE = 1e-3  # of the gradients' relative distance
RANDOM_TOLERANCE = 0.2  # TRL leaves a random model's probability on tokens that are never sampled
THREADS = (1, 2)


def digits(response: str, reference: str, *, task: Task) -> float:
    """The reward of `--quick`, whose model is random: the share of digits, so that groups differ."""
    del reference, task
    return sum(c.isdigit() for c in response) / max(1, len(response))


def serve_ours(connection: Any, job: Job) -> None:
    """Our side's process: make a step, or send weights or the tasks, when told to."""
    config, stage = job.config, job.stage
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads or 1)
    folder = RunFolder.open(config)
    with open_context(config, folder, Path.cwd(), PlainConsole()) as context:
        skipped = SkippedUpdates(folder.stage(stage.name) / "skipped", recipe="")
        with closing(open_rl_learner(context, stage, job.model_path, skipped)) as learner:
            loop = build_loop(context, stage, learner, job.model_path)
            loop.sync.publish()
            with closing(loop.source):
                connection.send("ready")
                step = 0
                while (command := receive(connection)[0]) != "end":
                    if command == "tasks":
                        every = range(stage.steps)
                        connection.send([loop.task_sampler.draw(i, stage.prompts_per_step) for i in every])
                    elif command == "weights":
                        connection.send(learner.weights())
                    else:
                        began = time.perf_counter()
                        values = loop.step(step)
                        seconds = time.perf_counter() - began
                        step += 1
                        phases = {k: v for k, v in values.items() if k.startswith("seconds/")}
                        connection.send({"seconds": seconds, **phases})


class Side:
    """A side's process, seen from the parent."""

    def __init__(self, serve: Any, *arguments: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, *arguments))
        self._process.start()
        other.close()
        self.read()

    def read(self) -> Any:
        """The next answer."""
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise SystemExit(f"a side ended with exit code {self._process.exitcode}; its messages are above") from None

    def call(self, *command: Any) -> Any:
        """Send a command, wait for its answer."""
        self._connection.send(command)
        return self.read()

    def step(self, threads: int) -> dict[str, float]:
        """Make a step; its seconds, and the processor's seconds of all processes of the side."""
        before = self._cpu_seconds()
        found = self.call("step", threads)
        return {**found, "cpu_seconds": self._cpu_seconds() - before}

    def _cpu_seconds(self) -> float:
        own = psutil.Process(self._process.pid)
        times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
        return sum(t.user + t.system for t in times)

    def close(self) -> None:
        """End the process."""
        self._connection.send(("end",))
        self._process.join()


class Examination:
    """Held-out accuracy of any weights, sampled as in training."""

    def __init__(self, job: Job, tasks: int, samples: int) -> None:
        path, data = job.model_path, job.config.data_of(job.stage)
        processor = load_processor(path)
        stop, barred = stop_and_barred_ids(path, processor)
        renderer = PromptRenderer.from_config(processor, data)
        chosen = held_out(data.held_out, limit=tasks, seed=HELD_OUT_SEED, base=Path.cwd())
        self._prompts, self._samples, self._sampling = renderer.render_all(chosen)[0], samples, job.stage.sampling
        self._engine = EngineDriver(TransformersEngine(load_model(path), stop_ids=stop, barred_ids=barred))
        self._pipeline = RolloutPipeline(
            renderer=renderer,
            generate=self._engine.generate,
            decode=lambda ids: processor.tokenizer.decode(ids, skip_special_tokens=True),
            scorer=open_scorer(job.stage, data, base=Path.cwd()),
        )

    def accuracy(self, weights: Any, number: int) -> float:
        """Share of right completions; `number` counts the weights."""
        self._engine.load_weights(weights, version=number)
        groups = self._pipeline.generate_and_score(self._prompts, self._sampling, n=self._samples, seed=number)
        return accuracy(rollout.score.verdict for group in groups for rollout in group)


def best_of_trl(job: Job, tasks: Any, sizes: list[int]) -> tuple[int, int]:
    """The fastest micro-batch and number of threads, by the second step of each; the first warms up."""
    seconds: dict[tuple[int, int], float] = {}
    for micro in sizes:
        side = Side(serve_trl, job, tasks, micro)
        side.step(THREADS[-1])
        for threads in THREADS:
            seconds[micro, threads] = side.step(threads)["seconds"]
            print(f"TRL, micro-batches of {micro}, {threads} threads: {seconds[micro, threads]:.1f} s", flush=True)
        side.close()
    return min(seconds, key=seconds.__getitem__)


def seconds_to(curve: list[tuple[float, float]], target: float) -> float | None:
    """Seconds at which a curve of (seconds, accuracy) first reaches `target`, between two points in a straight line."""
    for (before, low), (after, high) in itertools.pairwise(curve):
        if high >= target:
            return before + (after - before) * max(0.0, target - low) / max(1e-9, high - low)
    return None


@dataclass
class Race:
    """Both sides' steps, and accuracy over their seconds."""

    warm: float
    target: float
    rows: dict[str, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    gap: float = math.nan  # of the first step's gradients

    def seconds(self, name: str) -> float | None:
        """Seconds of a side to the target."""
        return seconds_to(self.curves[name], self.target)

    def median(self, name: str, part: str = "seconds") -> float:
        """Seconds of a step, or of a part of it."""
        return statistics.median(row[part] for row in self.rows[name])

    def table(self, settings: dict[str, str]) -> str:
        """The table of docs/benchmarks.md."""
        lines = [f"| | seconds a step | CPU seconds | steps | seconds to {self.target:.3f} |", "|---|---|---|---|---|"]
        for name, rows in self.rows.items():
            reached = self.seconds(name)
            end = f"not reached ({self.curves[name][-1][1]:.3f})" if reached is None else f"{reached:.0f}"
            seconds = [f"{self.median(name, part):.2f}" for part in ("seconds", "cpu_seconds")]
            lines.append(f"| {settings[name]} | {' | '.join(seconds)} | {len(rows)} | {end} |")
        return "\n".join(lines)

    def figures(self) -> dict[str, Any]:
        """For the line of JSON."""
        best = min((name for name in self.rows if name != "trl"), key=self.median)
        pairs = zip(self.rows["trl"], self.rows[best], strict=False)
        reached = {name: self.seconds(name) for name in self.rows}
        trl, own = reached["trl"], reached[best]
        phases = [key for key in self.rows[best][0] if key.startswith("seconds/")]
        return {
            "best": best,
            "step_ratio": statistics.median(theirs["seconds"] / ours["seconds"] for theirs, ours in pairs),
            "accuracy_ratio": trl / own if trl and own else None,
            "gradient_gap": self.gap,
            "warm_accuracy": self.warm,
            "target": self.target,
            "seconds_to_target": reached,
            "median_seconds": {name: self.median(name) for name in self.rows},
            "median_cpu_seconds": {name: self.median(name, "cpu_seconds") for name in self.rows},
            "our_phases": {key: self.median(best, key) for key in phases},
            "curves": self.curves,
        }


def race(sides: dict[str, tuple[Side, int]], judge: Examination, args: argparse.Namespace, *, until: float) -> Race:
    """Steps in turn until both sides reach the accuracy, or the clock says `until`."""
    warm = judge.accuracy(sides["trl"][0].call("weights"), 1)
    found = Race(warm=warm, target=warm + args.gain, curves={name: [(0.0, warm)] for name in sides})
    print(f"warm model: {warm:.3f}; both are to reach {found.target:.3f}", flush=True)
    for step in range(1, args.steps + 1):
        running = [name for name in sides if found.seconds(name) is None]
        for name in running:
            side, threads = sides[name]
            found.rows[name].append(side.step(threads))
        if step == 1:
            found.gap = sides["trl"][0].call("compare")
            print(f"the first step's gradient, ours and TRL's of TRL's rollouts: {found.gap:.1e} apart", flush=True)
        last = step == args.steps or time.monotonic() > until
        if step % args.every == 0 or last:
            for name in running:
                spent = sum(row["seconds"] for row in found.rows[name])
                found.curves[name].append((spent, judge.accuracy(sides[name][0].call("weights"), 1 + step)))
                print(f"step {step}, {name}: {spent:.0f} s, accuracy {found.curves[name][-1][1]:.3f}", flush=True)
        if last or all(found.seconds(name) is not None for name in sides):
            break
    return found


def warm_model(config: RunConfig, stage: str) -> Path:
    """The quickstart's model that enters RL."""
    names = [s.name for s in config.stages]
    path = Path(config.output_dir) / names[names.index(stage) - 1] / "model"
    if not path.is_dir():
        raise SystemExit(f"{path}: no such model; run `make quickstart` first, or name one with --model")
    return path


def make_job(model: Path | None, folder: Path, *, quick: bool) -> Job:
    """The recipe's RL stage alone, from the warm model; `quick` makes it small, and the model random."""
    config = load_recipe(RECIPE)
    stage = config.last_rl
    assert stage is not None
    if quick:
        model = create_tiny_checkpoint(folder / "model", corpus=["0 1 2 3 4 5 6 7 8 9 + - * ="] * 9)
        reward = RewardConfig(use=f"{Path(__file__).resolve()}:digits", in_process=True)
        sampling = replace(stage.sampling, max_new_tokens=16)
        stage = replace(stage, steps=3, prompts_per_step=4, samples_per_prompt=4, sampling=sampling, rewards=(reward,))
    config = replace(
        config,
        stages=(stage,),
        model=ModelConfig(path=str((model or warm_model(config, stage.name)).resolve())),
        output_dir=str(folder / "run"),
        export=False,
    )
    return Job(config=config, stage=stage)


def main() -> None:
    """Race, print the table, end with one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="the warm model; by default the quickstart's before RL")
    parser.add_argument("--gain", type=float, default=0.5, help="of held-out accuracy over the warm model")
    parser.add_argument("--steps", type=int, default=40, help="most steps of each side")
    parser.add_argument("--every", type=int, default=2, help="steps between two evaluations")
    parser.add_argument("--tasks", type=int, default=400, help="held-out tasks, of 4 completions each")
    parser.add_argument("--micro", type=int, nargs="+", default=[64, 128, 256], help="completions that TRL tries")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of our learner; each is a side")
    parser.add_argument("--minutes", type=float, default=9, help="no step begins later than this")
    parser.add_argument("--quick", action="store_true", help="two steps of a random model: does it run?")
    args = parser.parse_args()
    os.environ |= {"OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
    if args.quick:
        args.steps, args.every, args.tasks, args.micro = 2, 1, 8, [16]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        job = make_job(args.model, Path(folder), quick=args.quick)
        sides: dict[str, tuple[Side, int]] = {}
        for own in args.threads:
            config = replace(job.config, threads=own, output_dir=f"{folder}/threads-{own}")
            sides[f"thinkvl/{own}"] = (Side(serve_ours, replace(job, config=config)), own)
        drawn = sides[f"thinkvl/{args.threads[0]}"][0].call("tasks")[: max(args.steps, 1 + len(THREADS))]
        micro, threads = best_of_trl(job, drawn, args.micro)
        sides["trl"] = (Side(serve_trl, job, drawn, micro), threads)
        judge = Examination(job, args.tasks, 4)
        found = race(sides, judge, args, until=began + 60 * args.minutes)
        for side, _ in sides.values():
            side.close()
    settings = {
        **{f"thinkvl/{own}": f"ThinkVL, learner on {own} thread{'s' * (own > 1)}" for own in args.threads},
        "trl": f"TRL {version('trl')}, {threads} threads, micro-batches of {micro} (its best)",
    }
    print(found.table(settings))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl", "ray"))
    print(f"{machine}, {versions}; load {os.getloadavg()[0]:.1f}")
    print(json.dumps(found.figures()))
    if not found.gap < (RANDOM_TOLERANCE if args.quick else TOLERANCE):
        raise SystemExit(f"the first gradients are {found.gap:.1e} apart: the two sides do not compute one loss")


if __name__ == "__main__":
    main()
