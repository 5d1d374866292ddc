"""A supervised stage of a run: pre-training, cooldown, instruction tuning, long-CoT fine-tuning."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from configs.supervised import SupervisedConfig
from configs.text import counted
from rl.learner.base import BaseLearner
from rl.learner.optimizer import rounding_note
from rl.learner.parallel import SingleProcess
from rl.run.context import RunContext, load_policy
from rl.run.progress import StageProgress
from rl.stages.checkpoint_writer import CheckpointWriter
from rl.stages.example_batches import ExampleBatches, ExampleRenderer
from rl.stages.open_learner import open_supervised_learner
from rl.throughput import Throughput, supervised_work
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageModel


class SupervisedStage:
    """Next-token prediction on the stage's examples, with checkpoints of its own."""

    def __init__(self, context: RunContext, config: SupervisedConfig, model_path: str) -> None:
        self._context, self._config = context, config
        self._folder = context.folder.stage(config.name)
        if (note := rounding_note(context.config.model, config.optimizer, stage=config.name)) is not None:
            context.console.print(note, highlight=False)
        self._checkpoints = CheckpointWriter(
            self._folder / "checkpoints", base=context.frozen_base(model_path), on_written=context.copy_to_mirror
        )
        self._learner = self._open_learner(model_path)
        self._throughput = Throughput(work=supervised_work(context.config.model, model_path, config))
        self._done = 0

    def _open_learner(self, model_path: str) -> Any:
        """The learner, whose `update` takes what `_batches` yields."""
        return open_supervised_learner(self._context, self._config, model_path)

    def _batches(self) -> Generator[Sequence[Any]]:
        """The examples of each step that is left."""
        context, inputs = self._context, self._context.inputs[self._config.name]
        config = replace(self._config, max_tokens=min(self._config.max_tokens, inputs.context))
        renderer = self._example_renderer(config)
        batches = ExampleBatches(context.examples(config), renderer, config, seed=context.config.seed)
        yield from batches.from_step(self._done, say=context.console.print)
        for reason, count in batches.skipped.items():
            context.console.print(f"{config.name}: {counted(count, 'example')} left out: {reason}")

    def _completions(self, batch: Sequence[Any]) -> Sequence[PromptCompletion]:
        """What the learner reads in a step; the metrics of speed count it."""
        return batch

    def _example_renderer(self, config: SupervisedConfig) -> ExampleRenderer:
        """What makes the learner's examples of the mixture's."""
        return ExampleRenderer(self._context.inputs[config.name].renderer, config)

    def resume(self) -> int:
        """Restore the learner and the random state from the newest checkpoint that can be read."""
        state = self._checkpoints.restore(self._learner, self._context.console.print)
        if state is not None:
            self._done = int(state["step"])
            self._context.console.print(f"resuming {self._config.name} after step {self._done}")
        return self._done

    def run(self) -> VisionLanguageModel:
        """Train the remaining steps."""
        context, config = self._context, self._config
        bar = StageProgress(
            context.console,
            config.name,
            total=config.steps,
            done=self._done,
            shown=("loss",),
            where=context.place_of(config),
        )
        with self._checkpoints as checkpoints, closing(self._batches()) as batches, bar:
            for step, batch in enumerate(batches, self._done + 1):
                checkpoints.check()
                began = time.perf_counter()
                values = self._learner.update(batch)
                seconds = time.perf_counter() - began
                values |= self._throughput.learner(self._completions(batch), seconds, self._learner.resource_use())
                context.metrics.write(config.name, step, values)
                if step == config.steps or step % config.save_every == 0:
                    checkpoints.save(step, self._learner, {})
                bar.advance(values)
        self._learner.save_adapters(self._folder / "adapter")
        if isinstance(self._learner, BaseLearner) and isinstance(self._learner.parallel, SingleProcess):
            return self._learner.model.eval()
        self._learner.save(self._folder / "trained")
        return load_policy(context, str(self._folder / "trained"))

    def figures(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def close(self) -> None:
        """End the learner's ranks."""
        self._learner.close()
