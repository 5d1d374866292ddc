"""Prints docs/walkthrough.md: one task on its way from the data set to the gradient, with the objects of each stage.

    python docs/make_walkthrough.py > docs/walkthrough.md

Everything runs in this process, on a tiny Kimi-VL with random weights; no Ray cluster is started.
"""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch

from configs.algorithms import LossConfig
from configs.data import SourceConfig
from configs.optimizer import OptimizerConfig
from configs.rl import RLConfig, SamplingConfig
from rewards.scorer import Scorer
from rl.learner.batch import collect_images, make_micro_batch
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.samples import build_samples, compute_advantages
from rl.types import PromptCompletion, StepBatch
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.model_family import FAMILIES, TINY_FAMILY
from rollouts.patches import Patches
from rollouts.sources.group_building import groups_with_signal, make_groups
from rollouts.sources.reward_shaping import shape_rewards
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.sources.window import WindowedSource
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import PromptRenderer
from rollouts.tasks.task_samplers import build_task_sampler
from rollouts.types import Request

SEED, FOLLOWED = 0, 1  # the task of the step that the page follows
CONFIG = RLConfig(
    steps=1,
    prompts_per_step=2,
    samples_per_prompt=8,
    sampling=SamplingConfig(max_new_tokens=3),
    loss=LossConfig(algorithm="grpo"),
    optimizer=OptimizerConfig(learning_rate=1e-3, warmup_steps=0),
)
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "vision_hidden_size": 64,
}


def main() -> None:
    """Run one step by hand and print what each line of `rl/step.py` makes."""
    torch.set_num_threads(1)
    say("# From a task to the gradient", INTRODUCTION)

    mixture = TaskMixture([SourceConfig(use="digit_sums", options={"scans": [2]})], seed=SEED, base=Path())
    task_sampler = build_task_sampler(CONFIG.decided_task_sampler, mixture, seed=SEED, steps=CONFIG.steps)
    task_sampler.begin_step(0)
    tasks = task_sampler.draw(0, CONFIG.prompts_per_step)
    say("## 1. Task", TASK)
    show(tasks[FOLLOWED])

    with tempfile.TemporaryDirectory() as folder, Scorer(CONFIG.rewards) as scorer:
        engine, learner, pipeline = build(Path(folder), [t.question + (t.solution or "") for t in tasks], scorer)
        served: Any = engine  # a source reads one thing from its worker pool: the version that is served
        dispatcher: Any = InProcess
        source = WindowedSource(CONFIG, pipeline, served, seed=SEED, dispatcher=dispatcher)
        source.begin_step(0)
        source.submit(tasks, step=0)
        finished = source.next_groups(0)
        group = finished[FOLLOWED]
        say("## 2. Prompt", PROMPT)
        show(group.prompt, leave_out=("task",))
        say("## 3. Request and completion", COMPLETION)
        show(group.pending.request, leave_out=("prompt",))
        show(group.rollouts[0].completion)
        say("## 4. Rollout and scored rollout", ROLLOUT)
        best = max(group.scored(), key=lambda scored: scored.score.reward or 0.0)
        for scored in (group.scored()[0], best):
            show(scored.rollout, leave_out=("prompt", "completion"))
            show(scored.score)

        groups = make_groups([g.prompt for g in finished], [g.scored() for g in finished])
        groups = [shape_rewards(g, CONFIG, step=0) for g in groups]
        trained = groups_with_signal(groups, CONFIG)
        say("## 5. Group", GROUP)
        block(*(f"Group {g.id}: rewards {g.rewards}, {'has signal' if g in trained else 'no signal'}" for g in groups))

        outputs = learner.model_outputs(trained)
        advantages = compute_advantages(trained, CONFIG, outputs)
        say("## 6. Advantages", ADVANTAGES)
        of_groups = zip(trained, advantages, strict=True)
        block(*(f"Group {g.id}: {rounded([c.advantage for c in own])}" for g, own in of_groups))
        samples = build_samples(trained, CONFIG, outputs, advantages)
        say("## 7. Sample", SAMPLE)
        show(samples[0], leave_out=("prompt",))

        step = StepBatch(samples=tuple(samples))
        micro = make_micro_batch(samples, collect_images(samples, learner.model.config))
        say("## 8. Step batch and micro-batch", BATCH)
        block(f"StepBatch: {step.sequences} sequences, {step.tokens} trainable tokens")
        show(micro)

        right = max(samples, key=lambda sample: sample.advantage)
        before = float(learner.logprobs([scoring(right)])[0].sum())
        metrics = learner.update(samples)
        say("## 9. Loss and gradient", LOSS)
        names = ("loss", "grad_norm", "clip_fraction", "learning_rate")
        block(*(f"{name}: {round(metrics[name], 3) + 0.0}" for name in names))  # + 0.0: no "-0.0"

        after = float(learner.logprobs([scoring(right)])[0].sum())
        engine.load_weights(learner.weights(), version=learner.version)
        say("## 10. Policy version", VERSION)
        block(
            f"learner.version: {learner.version}",
            f"engine.version: {engine.version}",
            f"log-prob of the completion with the largest advantage: {before:.2f} before, {after:.2f} after",
        )


def build(folder: Path, corpus: list[str], scorer: Scorer) -> tuple[EngineDriver, Learner, RolloutPipeline]:
    """A tiny model as engine and as learner. All tokens but the digits and the end are barred."""
    family = FAMILIES[TINY_FAMILY]
    path = family.create_tiny_checkpoint(folder / "tiny", corpus=corpus, sizes=SIZES, seed=SEED)
    processor = family.load_processor(path)
    stop, barred = family.stop_and_barred_ids(path, processor)
    spoken = {*stop, *(processor.tokenizer.encode(digit, add_special_tokens=False)[0] for digit in "0123456789")}
    model = family.load_model(path)
    barred = sorted({*barred, *range(model.config.text_config.vocab_size)} - spoken)
    engine = EngineDriver(TransformersEngine(family.load_model(path), stop_ids=stop, barred_ids=barred))
    config = LearnerConfig(
        loss=CONFIG.loss,
        optimizer=CONFIG.optimizer,
        temperature=CONFIG.sampling.temperature,
        total_steps=CONFIG.steps,
        max_new_tokens=CONFIG.sampling.max_new_tokens,
    )
    pipeline = RolloutPipeline(
        renderer=PromptRenderer(processor, max_prompt_tokens=1024),
        generate=engine.generate,
        decode=lambda ids: processor.tokenizer.decode(ids, skip_special_tokens=True),
        scorer=scorer,
    )
    return engine, Learner(model, config, barred_ids=barred), pipeline


class InProcess:
    """A run's dispatcher hands requests to worker processes; this one generates them in this process."""

    lock = contextlib.nullcontext()

    def __init__(
        self, engine: EngineDriver, sampling: SamplingConfig, *, on_completions: Any, on_arrival: Any, room: int | None
    ) -> None:
        self.engine, self.sampling, self.on_completions = engine, sampling, on_completions
        self.requests: dict[int, Request] = {}

    def submit(self, requests: dict[int, Request]) -> None:
        """Queue requests by key."""
        self.requests |= requests

    def wait_until(self, ready: Any) -> None:
        """Generate what is queued."""
        completions = self.engine.generate(list(self.requests.values()), self.sampling)
        for key, found in zip(self.requests, completions, strict=True):
            self.on_completions(key, found)


def scoring(sample: PromptCompletion) -> PromptCompletion:
    """The sample without what only a loss reads."""
    return PromptCompletion(id=sample.id, prompt=sample.prompt, token_ids=sample.token_ids)


def say(heading: str, text: str) -> None:
    """Print a heading and its text."""
    print(f"{heading}\n\n{text.strip()}\n" if heading.startswith("# ") else f"\n{heading}\n\n{text.strip()}\n")


def block(*lines: str) -> None:
    """Print lines as code."""
    print("```", *lines, "```", sep="\n")


def show(value: Any, *, leave_out: tuple[str, ...] = ()) -> None:
    """Print a dataclass field by field, arrays as their type and shape and, where they are short, their values."""
    rows = [(f.name, getattr(value, f.name)) for f in fields(value) if f.name not in leave_out]
    block(type(value).__name__, *(f"  {name}: {brief(field)}" for name, field in rows if not empty(field)))


DETAILS = ("seconds", "rule")  # fields of a verdict that differ from run to run, or that the reader need not know


def empty(value: Any) -> bool:
    """True for what says nothing: None and empty containers."""
    return value is None or (isinstance(value, str | tuple | dict) and not value)


def brief(value: Any) -> str:
    """A value in less than a line."""
    if isinstance(value, np.ndarray | torch.Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        shown = f" {rounded(value.tolist())}" if value.ndim == 1 and len(value) <= 4 else ""
        return f"{kind}[{', '.join(map(str, value.shape))}]{shown}"
    if isinstance(value, Patches):
        return brief(value.data)
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return f"{len(value)} PNG file" + "s" * (len(value) > 1)
    if isinstance(value, tuple) and len(value) > 2:
        return f"{len(value)} x {type(value[0]).__name__}"
    if isinstance(value, tuple):
        return ", ".join(map(brief, value))
    if is_dataclass(value):
        named = ((f.name, getattr(value, f.name)) for f in fields(value) if f.name not in DETAILS)
        return f"{type(value).__name__}({', '.join(f'{n}={brief(v)}' for n, v in named if not empty(v))})"
    text = repr(rounded(value)) if isinstance(value, str | float) else str(value)
    return text if len(text) <= 90 else f"{text[:80]}..."


def rounded(value: Any) -> Any:
    """Floats to three decimals, also in lists."""
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return round(value, 3) if isinstance(value, float) else value


INTRODUCTION = """
This page follows one task through a step of RL (`rl/step.py`), and prints the object that each stage makes. The script
`docs/make_walkthrough.py` writes it, and `tests/rl/test_walkthrough.py` compares the page with what the script prints.

The model is a tiny Kimi-VL with random weights. So that it answers at all, every token but the ten digits and the end
of the turn is barred. The algorithm is GRPO with two prompts a step and eight completions each.

```
Task -> Prompt -> Completion -> Rollout -> ScoredRollout -> Group -> Sample -> MicroBatch / StepBatch -> PolicyVersion
```
"""
TASK = """
A source yields tasks, a mixture weighs the sources, and the task sampler chooses the tasks of a step
(`rollouts/tasks/`). A task is a question with images and a reference answer, and names the verifier that compares.
"""
PROMPT = """
`PromptRenderer` applies the chat template and cuts images into patches of 14 x 14 pixels. An image placeholder stands
for 2 x 2 patches. The prompt's id is that of its group: the step, counted from 1, and the number in the step.
"""
COMPLETION = """
`WindowedSource` submits the prompt for `n` completions. Token t of sample i is drawn with a number that depends on
(seed, i, t) alone. A completion has two log-probs a token. `policy_logprobs` are under the temperature and the barred
tokens, and the learner computes them in the same way. `sampler_logprobs` are under top-p, top-k and min-p too. Each
segment records the version of the policy that sampled it.
"""
ROLLOUT = """
A rollout is a completion with its text. The scorer extracts the answer, calls the verifier and sums the rewards of the
recipe. A verifier that fails gives no reward instead of 0, and its rollout leaves the group.
"""
GROUP = """
`make_groups` puts the rollouts of one prompt together, and `shape_rewards` adds the length reward and similar terms. A
group whose rewards are all equal has no signal: its advantages would all be 0.
"""
ADVANTAGES = """
GRPO's advantage is the reward less the mean of the group, divided by its standard deviation (`rl/algorithms/`). The
learner first computes what the algorithm needs of its models, such as reference log-probs; GRPO without a KL term needs
nothing.
"""
SAMPLE = """
A sample is what the learner trains on. `old_logprobs` is the denominator of the ratio, except in
the first update of a step, which takes the policy's log-probs in its own forward pass.
"""
BATCH = """
A step batch holds the denominators of the loss, counted over the whole step, so that micro-batches of any size give one
gradient. A micro-batch packs prompts and completions into one row without padding. Each prompt, with its images, stands
once, before the completions of its group. `predictors` are the places in the row that predict the trainable tokens.
"""
LOSS = """
`Learner.update` runs the model on each micro-batch, computes the policy loss and its gradient, clips the gradient and
makes an optimizer step. Before the first update all ratios are 1, and GRPO's advantages sum to 0 in a group. So the
value of the loss is 0, and its gradient is not.
"""
VERSION = """
The update made a new policy version. The weight sync sends it to the engines, which record it with every segment that
they sample from then on.
"""

if __name__ == "__main__":
    main()
