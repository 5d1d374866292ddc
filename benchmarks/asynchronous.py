"""Synchronous against asynchronous runs: wall clock per trained sample.

    python benchmarks/asynchronous.py [--quick] [--only simulated real] [--model FOLDER] [--steps 20] [--rounds 3]

Two rows, the same workers and threads on both sides. *simulated*: real Ray actors, pool, request dispatcher, scorer,
log and loop, but an engine that replays recorded long-tailed lengths as latency (a token takes a fixed time, however
many rows decode) and a learner that sleeps; both hardly need a processor. Sides take turns, round by round. *real*: the
RL stage of `plentiful_solutions.yaml` from `--model` (its `long_cot/model`; without it a model with random weights,
whose accuracy says nothing), with accuracy after equal samples. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch

from configs.algorithms import LossConfig
from configs.load import load_recipe
from configs.rl import AsyncConfig, RLConfig, SamplingConfig
from rewards.scorer import Scorer
from rewards.types import Task
from rl.pipeline import run
from rl.rollout_log import RolloutLog
from rl.run.console import PlainConsole
from rl.run.trackers.jsonl_tracker import read_metrics
from rl.step import Loop
from rl.types import ModelOutputs
from rl.weight_sync import WeightSync
from rollouts.engines.driver import EngineDriver
from rollouts.engines.protocol import Engine, FinishedGroup
from rollouts.patches import Patches
from rollouts.resource_use import ProcessUse
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.sources.window import WindowedSource
from rollouts.tasks.task_samplers import UniformSampler
from rollouts.types import Completion, Prompt, Request, Segment
from rollouts.weight_stream import Shapes, WeightStream, stream_of
from rollouts.workers.actor import EngineSpec
from rollouts.workers.pool import RolloutPool
from rollouts.workers.start_ray import start_ray

RECIPE = "benchmarks/plentiful_solutions.yaml"
LENGTHS = Path(__file__).with_name("lengths.json")
SLICE = 8  # tokens between two looks at the queue
STALENESS = 3
Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ReplaySpec(EngineSpec):
    """An engine without a model: `rows` decode together, each token takes `token_seconds`."""

    lengths: tuple[int, ...]
    rows: int
    token_seconds: float

    def build(self) -> EngineDriver:
        """The engine, in a worker's process."""
        return EngineDriver(ReplayEngine(self))


@dataclass(slots=True)
class ReplayedSample:
    """A sample whose length is known from the start."""

    index: int  # index in its request
    tokens: int
    left: int
    version: int = 0  # policy version of its first token


class ReplayEngine(Engine):
    """Sleeps as long as the recorded completions would take; refills a row as soon as it ends."""

    def __init__(self, spec: ReplaySpec) -> None:
        self.spec, self._version = spec, 0
        self.model = torch.nn.Sequential(torch.nn.LayerNorm(2))
        self.queue: deque[ReplayedSample] = deque()
        self.live: list[ReplayedSample] = []
        self.ended: dict[int, list[ReplayedSample]] = {}
        self.sizes: dict[int, int] = {}

    @property
    def version(self) -> int:
        """The policy version of the next slice."""
        return self._version

    def start_load(self, shapes: Shapes) -> None:
        """The two small tensors always fit."""

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Copy the two small tensors."""
        self.model.load_state_dict(weights)

    def finish_load(self, version: int) -> None:
        """Serve `version` from the next slice on."""
        self._version = version

    def served_weights(self) -> Mapping[str, torch.Tensor]:
        """The two small tensors."""
        return self.model.state_dict()

    def add(self, index: int, request: Request, sampling: SamplingConfig) -> None:
        """Queue the samples of a request."""
        lengths = [self._length(request, i) for i in range(request.n)]
        self.queue.extend(ReplayedSample(index, tokens, tokens) for tokens in lengths)
        self.sizes[index] = request.n

    def step(self) -> list[FinishedGroup]:
        """Sleep for a slice of every running sample."""
        while self.queue and len(self.live) < self.spec.rows:
            sample = self.queue.popleft()
            sample.version = self._version
            self.live.append(sample)
        time.sleep(SLICE * self.spec.token_seconds)
        for sample in self.live:
            sample.left -= SLICE
            if sample.left <= 0:
                self.ended.setdefault(sample.index, []).append(sample)
        self.live = [sample for sample in self.live if sample.left > 0]
        done = [index for index, samples in self.ended.items() if len(samples) == self.sizes[index]]
        return [(index, [self._completion(sample) for sample in self.ended.pop(index)]) for index in done]

    def cancel(self, indices: Iterable[int]) -> list[FinishedGroup]:
        """Drop these requests. Nothing here reads their samples."""
        gone = set(indices)
        self.queue = deque(sample for sample in self.queue if sample.index not in gone)
        self.live = [sample for sample in self.live if sample.index not in gone]
        return [(index, []) for index in gone if self.ended.pop(index, None) or index in self.sizes]

    def _length(self, request: Request, sample: int) -> int:
        return self.spec.lengths[(request.seed + 7919 * sample) % len(self.spec.lengths)]

    def _completion(self, sample: ReplayedSample) -> Completion:
        tokens, first = sample.tokens, sample.version
        cut = tokens // 2
        segments = (Segment(start=0, stop=tokens, version=first),)
        if first != self._version and cut:
            segments = (
                Segment(start=0, stop=cut, version=first),
                Segment(start=cut, stop=tokens, version=self._version),
            )
        zeros = np.zeros(tokens, np.float32)
        return Completion(
            token_ids=np.full(tokens, tokens),
            policy_logprobs=zeros,
            sampler_logprobs=zeros,
            finish_reason="stop",
            segments=segments,
        )


class SleepingLearner:
    """A learner whose update sleeps."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.version = seconds, 0

    def model_outputs(self, groups: Sequence[Any], oldest: int) -> list[list[ModelOutputs]]:
        """No reference log-probs and no values: this learner needs none."""
        return [[ModelOutputs() for _ in group.rollouts] for group in groups]

    def update(self, samples: Sequence[Any]) -> dict[str, float]:
        """Sleep."""
        time.sleep(self.seconds)
        self.version += 1
        return {}

    def resource_use(self) -> list[ProcessUse]:
        """It computes on nothing."""
        return []

    def weight_stream(self, dtype: str | None = None) -> WeightStream:
        """The tensors of the engine's layer."""
        return stream_of({"0.weight": np.ones(2, np.float32), "0.bias": np.zeros(2, np.float32)})


class Numbered:
    """A mixture of numbered tasks."""

    def draw(self, step: int, n: int) -> list[Task]:
        """Draw `n` tasks."""
        return [Task(id=f"{step}/{i}", source="replay", question="?", answer="1") for i in range(n)]


class Plain:
    """Prompts without a model."""

    def render_all(
        self, tasks: Sequence[Task], rendered: Mapping[int, Any] | None = None
    ) -> tuple[list[Prompt], dict[str, int]]:
        """One prompt a task."""
        empty = np.zeros((0, 3, 14, 14), np.float32), np.zeros((0, 2), np.int64)
        return [
            Prompt(id=t.id, task=t, input_ids=np.arange(4), patches=Patches(empty[0]), image_grid_hws=empty[1])
            for t in tasks
        ], {}


def simulated_side(pool: RolloutPool, config: RLConfig, *, update: float, folder: Path, seed: int) -> Figures:
    """Seconds per sample over all of a run's steps, filling and draining of the pipeline included."""
    learner: Any = SleepingLearner(update)
    renderer: Any = Plain()
    mixture: Any = Numbered()
    pipeline = RolloutPipeline(
        renderer=renderer,
        generate=pool.generate,
        decode=lambda ids: str(ids[0] % 2),
        scorer=Scorer(config.rewards),
    )
    source = WindowedSource(config, pipeline, pool, seed=seed)
    sync = WeightSync(pool=pool, learner=learner, prompts=[], sampling=config.sampling, threshold=0.0, say=print)
    loop = Loop(
        config=config,
        task_sampler=UniformSampler(config.decided_task_sampler, mixture, seed=seed, steps=config.steps),
        source=source,
        pool=pool,
        learner=learner,
        log=RolloutLog(folder),
        sync=sync,
        seed=seed,
    )
    sync.publish()
    began = time.perf_counter()
    with closing(source):
        rows = [loop.step(step) for step in range(config.steps)]
    loop.log.wait()
    seconds = time.perf_counter() - began
    samples = sum(row["rollouts"] for row in rows)
    return {"seconds": seconds / samples, "samples": samples, "lag": rows[-1].get("staleness_mean", 0.0)}


def simulated(*, steps: int, rounds: int, token_seconds: float) -> Figures:
    """Both sides in turns on one pool of two workers; medians of the rounds."""
    lengths = json.loads(LENGTHS.read_text(encoding="utf-8"))["lengths"]
    spec = ReplaySpec(
        model_path="", dtype="float32", stop_ids=(), barred_ids=(),
        lengths=tuple(lengths), rows=32, token_seconds=token_seconds,
    )  # fmt: skip
    pool = RolloutPool(spec, workers=2)
    common: dict[str, Any] = {
        "steps": steps, "prompts_per_step": 8, "samples_per_prompt": 8, "workers": 2, "parity_threshold": 0.0,
        "loss": LossConfig(algorithm="grpo"), "sampling": SamplingConfig(max_new_tokens=1024),
    }  # fmt: skip
    sides = {
        "synchronous": RLConfig(**common),
        "asynchronous": RLConfig(**common, asynchronous=AsyncConfig(max_staleness=STALENESS)),
    }
    update = token_seconds * float(np.mean(lengths))  # as long as a mean completion
    found: dict[str, list[Figures]] = {name: [] for name in sides}
    for round_ in range(rounds + 1):
        for name, config in sides.items():
            with tempfile.TemporaryDirectory() as folder:
                figures = simulated_side(pool, config, update=update, folder=Path(folder), seed=round_)
            if round_:  # the first starts the workers
                found[name].append(figures)
    pool.close()
    seconds = {name: statistics.median(f["seconds"] for f in rows) for name, rows in found.items()}
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(found["synchronous"], found["asynchronous"], strict=True)]
    return {
        "milliseconds_per_sample": {name: round(1000 * value, 2) for name, value in seconds.items()},
        "synchronous/asynchronous": round(statistics.median(ratios), 2),
        "tokens_mean": round(float(np.mean(lengths)), 1),
        "tokens_max": max(lengths),
        "update_to_mean_answer": 1.0,
        "max_staleness": STALENESS,
        "staleness_mean": statistics.median(f["lag"] for f in found["asynchronous"]),
    }


def real(model: Path | None, *, steps: int, folder: Path, quick: bool) -> Figures:
    """The recipe's RL stage, synchronous and asynchronous, from one model; accuracy after equal samples."""
    given = ["instruct=null", "long_cot=null", "export=false", f"rl.steps={steps}", f"rl.eval_every={steps}"]
    given += [f"rl.save_every={steps}", f"model.path={model.resolve() if model else 'tiny'}"]
    if quick:
        given += ["rl.prompts_per_step=8", "evaluation={tasks: 10, validation_tasks: 4, max_new_tokens: 24}"]
        given += ["rl.sampling.max_new_tokens=24"]
    sides = {
        "synchronous": [],
        "asynchronous": ["rl.asynchronous={max_staleness: 1}", "rl.loss.correction={level: token, high: 2.0}"],
    }
    found: Figures = {}
    for name, overrides in sides.items():
        path = folder / name
        run(load_recipe(RECIPE, [f"output_dir={path}", *given, *overrides]), base=Path.cwd(), console=PlainConsole())
        rows = read_metrics(path / "metrics.jsonl", stage="rl")
        seconds = sum(row["seconds/step"] for row in rows)
        [stage] = json.loads((path / "summary.json").read_text(encoding="utf-8"))["stages"]
        found[name] = {
            "milliseconds_per_sample": round(1000 * seconds / sum(row["rollouts"] for row in rows), 2),
            "samples": sum(row["rollouts"] for row in rows),
            "greedy_accuracy": stage["greedy_accuracy"],
            "sampled_accuracy": stage["sampled_accuracy"],
            "staleness_mean": statistics.mean(row.get("staleness_mean", 0.0) for row in rows),
        }
    one, other = (found[name]["milliseconds_per_sample"] for name in sides)
    return {**found, "synchronous/asynchronous": round(one / other, 2)}


def main() -> None:
    """Measure the rows, and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few steps: under a minute")
    parser.add_argument("--only", nargs="+", choices=["simulated", "real"], default=["simulated", "real"])
    parser.add_argument("--model", type=Path, help="where the real row starts")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    started = start_ray(2)
    result: Figures = {"benchmark": "asynchronous", "runs": 1 if args.quick else args.rounds}
    if "simulated" in args.only:
        size = {"steps": 6, "rounds": 1, "token_seconds": 0.002} if args.quick else {}
        result["simulated"] = simulated(**{"steps": args.steps, "rounds": args.rounds, "token_seconds": 0.005, **size})
    if "real" in args.only:
        with tempfile.TemporaryDirectory() as folder:
            result["real"] = real(
                args.model, steps=3 if args.quick else args.steps, folder=Path(folder), quick=args.quick
            )
    if started:
        ray.shutdown()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
