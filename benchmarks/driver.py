"""Seconds of the driver in a step of RL at full size: 16,384 answers of 8,192 tokens, sixteen for each image.

    python benchmarks/driver.py [--answers 416 832 1648] [--algorithm grpo] [--quick]

Runs the driver's own functions on made-up rollouts, at a tenth of a step and at two smaller sizes, and scales the
largest to 16,384 answers. Linear: seconds an answer are alike at all sizes. On the critical path are what the driver
does before the first answer begins and after the last one ends. Beside it is what it does while answers are still
generated (decode, hand over to the verifiers) or while the learner works (the log). Prints one line of JSON a size.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
from PIL import Image

from configs.algorithms import LossConfig
from configs.data import DataConfig
from configs.rl import RLConfig, SamplingConfig
from rewards.scorer import Scorer
from rewards.types import Task
from rl.alarms.watch import AlarmWatch
from rl.distributed.remote_samples import RemoteSamples
from rl.learner.balanced_shares import balanced_shares
from rl.rollout_log import RolloutLog
from rl.samples import build_samples, compute_advantages
from rl.step_metrics import StepRollouts, step_metrics
from rl.types import ModelOutputs
from rollouts.model_family import FAMILIES, TINY_FAMILY
from rollouts.sources.group_building import groups_with_signal, make_groups
from rollouts.sources.reward_shaping import shape_rewards
from rollouts.sources.source import SourceReport
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Completion, Prompt, Rollout, ScoredRollout, Segment
from rollouts.workers.render_tasks import RenderTasks
from rollouts.workers.start_ray import start_ray

STEP, SAMPLES = 16_384, 16  # answers of a step, and of each prompt
BESIDE = ("decode", "begin scoring", "log")
WORDS = "wait let me count the red cubes in this picture again so the answer is seven plus four"
T = TypeVar("T")


class Clock:
    """Wall and processor seconds of this process, by phase."""

    def __init__(self) -> None:
        self.wall: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def phase(self, name: str, run: Callable[[], T]) -> T:
        """What `run` returns."""
        wall, cpu = time.perf_counter(), time.process_time()
        found = run()
        self.wall[name] = time.perf_counter() - wall
        self.cpu[name] = time.process_time() - cpu
        return found


def make_tasks(count: int) -> list[Task]:
    """Questions on JPEG images of 1,200 x 900 pixels."""
    tasks = []
    for at in range(count):
        colours = np.random.default_rng(at).integers(0, 256, (30, 40, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(colours).resize((1200, 900), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        source = "ab"[at % 2]
        tasks.append(Task(id=str(at), source=source, question="How many?", answer="7", images=(file.getvalue(),)))
    return tasks


def make_completions(tokenizer: Any, prompts: int, tokens: int) -> list[list[Completion]]:
    """Half of the answers are right. They come out of a pickle, as those of a worker do."""
    rng = np.random.default_rng(0)
    thinking = np.array(tokenizer(" ".join([WORDS] * 2000), add_special_tokens=False)["input_ids"], np.int64)
    ends = [np.array(tokenizer(f"\\boxed{{{n}}}", add_special_tokens=False)["input_ids"], np.int64) for n in (7, 8)]

    def one(right: bool) -> Completion:
        end, start = ends[0 if right else 1], int(rng.integers(18))
        ids = np.concatenate([np.resize(thinking[start:], tokens - len(end)), end])
        logprobs = -rng.random(len(ids), dtype=np.float32)
        whole = (Segment(start=0, stop=len(ids), version=0),)
        return Completion(
            token_ids=ids,
            policy_logprobs=logprobs,
            sampler_logprobs=logprobs.copy(),
            finish_reason="stop",
            segments=whole,
        )

    return pickle.loads(pickle.dumps([[one(i % 2 == 0) for i in range(SAMPLES)] for _ in range(prompts)]))


def scored_of(rollouts: Sequence[Sequence[Rollout]], scorer: Scorer, clock: Clock) -> list[tuple[ScoredRollout, ...]]:
    """The verdicts. Only handing the answers over is the driver's work; it then waits for other processes."""
    futures = clock.phase(
        "begin scoring", lambda: [scorer.submit([r.text for r in own], own[0].prompt.task) for own in rollouts]
    )
    return [
        tuple(ScoredRollout(rollout=r, score=f.result()) for r, f in zip(own, waiting, strict=True))
        for own, waiting in zip(rollouts, futures, strict=True)
    ]


def measure(answers: int, tokens: int, algorithm: str, renderer: PromptRenderer, tokenizer: Any) -> Clock:
    """The phases of a step of so many answers."""
    clock, count = Clock(), -(-answers // SAMPLES)
    tasks, renders = make_tasks(count), RenderTasks(renderer)
    renders.render(tasks[:4])  # Ray's processes have started
    prompts: list[Prompt] = clock.phase("render", lambda: renderer.render_all(tasks, renders.render(tasks))[0])
    prompts = [replace(prompt, id=f"1.{at}") for at, prompt in enumerate(prompts)]
    clock.phase("hand out prompts", lambda: [ray.put(prompt) for prompt in prompts])
    completions = make_completions(tokenizer, count, tokens)
    rollouts = clock.phase("decode", lambda: [
        [Rollout(prompt=p, index=i, completion=c, text=tokenizer.decode(c.token_ids)) for i, c in enumerate(own)]
        for p, own in zip(prompts, completions, strict=True)
    ])  # fmt: skip
    scorer = Scorer([], workers=1)
    scored = scored_of(rollouts, scorer, clock)
    scorer.close()
    config = RLConfig(
        loss=LossConfig(algorithm=algorithm),  # pyright: ignore[reportArgumentType]
        samples_per_prompt=SAMPLES,
        prompts_per_step=count,
        steps=10,
        sampling=SamplingConfig(max_new_tokens=tokens),
    )
    groups = clock.phase(
        "groups", lambda: [shape_rewards(group, config, step=5) for group in make_groups(prompts, scored)]
    )
    trained = groups_with_signal(groups, config)
    outputs = [[_outputs(member, config) for member in group.rollouts] for group in trained]
    advantages = clock.phase("advantages", lambda: compute_advantages(trained, config, outputs))
    samples = clock.phase("samples", lambda: build_samples(trained, config, outputs, advantages))
    remote = RemoteSamples()
    headers = clock.phase("put for the ranks", lambda: remote.put(samples))
    clock.phase("plan of a rank", lambda: balanced_shares(headers, ranks=8, budget=65_536))
    report = StepRollouts(groups=tuple(groups), scored=tuple(scored), report=SourceReport(skipped={}))
    metrics = clock.phase("metrics", lambda: step_metrics(report, samples, config))
    clock.phase("alarms", lambda: AlarmWatch().observe(1, scored, metrics))
    with tempfile.TemporaryDirectory() as folder:
        clock.phase("log", lambda: RolloutLog(Path(folder)).write(1, scored, groups, samples))
    return clock


def _outputs(member: ScoredRollout, config: RLConfig) -> ModelOutputs:
    """What the ranks would say of a response, as far as the algorithm reads it."""
    own = member.rollout.completion.policy_logprobs - 0.01
    critic = config.loss.resolved().critic
    return ModelOutputs(policy_logprobs=own, reference_logprobs=own, values=own if critic is not None else None)


def main() -> None:
    """Measure each size, and print one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, nargs="+", default=[416, 832, 1648])
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--algorithm", default="grpo")
    parser.add_argument("--quick", action="store_true", help="64 answers of 256 tokens, to see that it runs")
    args = parser.parse_args()
    sizes, tokens = ([64], 256) if args.quick else (args.answers, args.tokens)
    start_ray(1)
    with tempfile.TemporaryDirectory() as folder:
        family = FAMILIES[TINY_FAMILY]
        text = WORDS + " \\boxed{7} \\boxed{8} How many? 0 1 2 3 4 5 6 9"
        processor = family.load_processor(family.create_tiny_checkpoint(Path(folder) / "tiny", corpus=[text] * 20))
    renderer = PromptRenderer.from_config(processor, DataConfig(max_prompt_tokens=4096))
    for answers in sizes:
        clock = measure(answers, tokens, args.algorithm, renderer, processor.tokenizer)
        scale = STEP / answers
        found = {}
        for kind, seconds in (("wall", clock.wall), ("cpu", clock.cpu)):
            phases = {name: round(scale * value, 2) for name, value in seconds.items()}
            beside = {name: phases.pop(name) for name in BESIDE}
            found[kind] = {"critical": round(sum(phases.values()), 1), **phases, "beside": beside}
        print(json.dumps({"benchmark": "driver", "cores": os.cpu_count(), "algorithm": args.algorithm,
                          "answers": answers, "tokens": tokens, f"seconds for {STEP} answers": found}))  # fmt: skip
    ray.shutdown()


if __name__ == "__main__":
    main()
