"""The training of `shortest` and `dpo`: a supervised stage's steps, on samples in place of the data's answers."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from configs.long2short import LongToShortConfig
from rewards.types import Task
from rl.run.context import RunContext
from rl.stages.open_learner import open_model
from rl.stages.preference_learner import PreferenceConfig, PreferenceLearner, PreferencePair
from rl.stages.prefetch import prefetched
from rl.stages.short_answers import AnswerPair, SampledAnswer
from rl.stages.supervised_stage import SupervisedStage
from rl.types import PromptCompletion

ItemT = TypeVar("ItemT")


def in_epochs(items: Sequence[ItemT], step: int, size: int, *, seed: int) -> list[ItemT]:
    """The `size` items of `step`, counted from 0: the items are walked in epochs, each in an order of its own."""
    chosen: list[ItemT] = []
    for position in range(step * size, (step + 1) * size):
        epoch, place = divmod(position, len(items))
        order = np.random.default_rng([seed, epoch]).permutation(len(items))
        chosen.append(items[int(order[place])])
    return chosen


class ShortestTraining(SupervisedStage):
    """Next-token prediction on the shortest correct sample of each question."""

    def __init__(
        self,
        context: RunContext,
        config: LongToShortConfig,
        model_path: str,
        tasks: Mapping[str, Task],
        answers: Sequence[SampledAnswer],
    ) -> None:
        super().__init__(context, config, model_path)
        self._tasks, self._answers = tasks, answers
        self._renderer = context.inputs[config.name].renderer

    def _batches(self) -> Generator[Sequence[PromptCompletion]]:
        steps, say = range(self._done, self._config.steps), self._context.console.print
        return prefetched(self._batch, steps, stage=self._config.name, say=say)

    def _batch(self, step: int) -> Sequence[PromptCompletion]:
        chosen = in_epochs(self._answers, step, self._config.batch_size, seed=self._context.seed(self._config))
        return [self._example(answer, f"{step + 1}.{place}") for place, answer in enumerate(chosen)]

    def _example(self, answer: SampledAnswer, name: str) -> PromptCompletion:
        prompt = replace(self._renderer.render(self._tasks[answer.task]), id=name)
        return PromptCompletion(id=name, prompt=prompt, token_ids=answer.token_ids)


class PreferenceTraining(SupervisedStage):
    """DPO on pairs of samples of one question."""

    def __init__(
        self,
        context: RunContext,
        config: LongToShortConfig,
        model_path: str,
        tasks: Mapping[str, Task],
        pairs: Sequence[AnswerPair],
    ) -> None:
        self._beta = config.beta
        super().__init__(context, config, model_path)
        self._tasks, self._pairs = tasks, pairs
        self._renderer = context.inputs[config.name].renderer

    def _open_learner(self, model_path: str) -> PreferenceLearner:
        context, config = self._context, self._config
        own = PreferenceConfig(
            optimizer=config.optimizer,
            total_steps=config.steps,
            micro_batch_tokens=config.micro_batch_tokens,
            beta=self._beta,
            seed=context.config.seed,
        )
        return PreferenceLearner(open_model(context, config, model_path), context.processor, own, folder=self._folder)

    def _batches(self) -> Generator[Sequence[PreferencePair]]:
        steps, say = range(self._done, self._config.steps), self._context.console.print
        return prefetched(self._batch, steps, stage=self._config.name, say=say)

    def _batch(self, step: int) -> Sequence[PreferencePair]:
        chosen = in_epochs(self._pairs, step, self._config.batch_size, seed=self._context.seed(self._config))
        return [self._pair(pair) for pair in chosen]

    def _completions(self, batch: Sequence[PreferencePair]) -> Sequence[PromptCompletion]:
        return [
            PromptCompletion(id=f"{place}/{side}", prompt=replace(pair.prompt, id=str(place)), token_ids=ids)
            for place, pair in enumerate(batch)
            for side, ids in (("chosen", pair.chosen), ("rejected", pair.rejected))
        ]

    def _pair(self, pair: AnswerPair) -> PreferencePair:
        prompt = self._renderer.render(self._tasks[pair.chosen.task])
        return PreferencePair(prompt=prompt, chosen=pair.chosen.token_ids, rejected=pair.rejected.token_ids)
