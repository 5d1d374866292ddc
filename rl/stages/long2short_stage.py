"""A long-to-short stage (k1.5 §2.4): fewer tokens for the same answers.

The fourth method of the paper, RL under a length budget, is a stage of the kind `rl` with `length_reward` and a smaller
`sampling.max_new_tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import torch

from configs.errors import UserError
from configs.json_io import read_json
from configs.long2short import LongToShortConfig
from configs.text import counted
from rewards.types import Task
from rl.learner.weight_stream import weight_stream
from rl.run.context import RunContext, load_policy
from rl.run.evaluate import evaluation_sampling
from rl.run.folder import write_json
from rl.run.held_out import evaluate_model
from rl.run.progress import StageProgress
from rl.run.scoring import scoring_stage
from rl.run.short_model import short_model_path
from rl.stages.answer_sampling import AnswerSampling
from rl.stages.long2short_training import PreferenceTraining, ShortestTraining
from rl.stages.short_answers import LONGER, SampledAnswer, preference_pairs, shortest_correct
from rl.stages.supervised_stage import SupervisedStage
from rl.stages.weight_average import average_weights
from rollouts.model_family import VisionLanguageModel


class LongToShortStage:
    """Measures the entering model, then averages it, or samples it and trains on its short samples."""

    def __init__(self, context: RunContext, config: LongToShortConfig, model_path: str) -> None:
        self._context, self._config, self._model_path = context, config, model_path
        self._folder = context.folder.stage(config.name)
        self._before = self._folder / "before.json"
        self._tasks: list[Task] = [] if config.method == "average" else context.mixture(config).fixed(config.prompts)
        trained = scoring_stage(context.config, config)
        self._sampling = AnswerSampling(
            self._tasks,
            context.pipeline(config),
            evaluation_sampling(trained.sampling if trained else None, context.config.evaluation),
            samples=config.samples,
            seed=context.seed(config),
            folder=self._folder / "rollouts",
        )

    def resume(self) -> int:
        """The batches of samples that are there; training finds its own checkpoint."""
        return self._sampling.done

    def run(self) -> VisionLanguageModel:
        """The shorter model."""
        if not self._before.exists() or not self._sampling.complete:
            self._measure_and_sample(load_policy(self._context, self._model_path))
        if self._config.method == "average":
            return self._average()
        with closing(self._training()) as training:
            training.resume()
            return training.run()

    def figures(self) -> dict[str, float]:
        """Greedy accuracy and mean tokens of the entering model on the held-out tasks."""
        return read_json(self._before, dict[str, float])

    def close(self) -> None:
        """Nothing runs beside this process once `run` has ended."""

    def _measure_and_sample(self, entering: VisionLanguageModel) -> None:
        """Evaluate the entering model and sample it, as far as an earlier process has not."""
        context = self._context
        if self._before.exists():
            context.pool.publish(weight_stream(entering, context.pool.dtype), version=context.pool.version + 1)
        else:
            result, _ = evaluate_model(context, self._config, entering, samples=0)
            accuracy, tokens = result.greedy_accuracy, result.mean_tokens
            write_json(self._before, {"before/greedy_accuracy": accuracy, "before/mean_tokens": tokens})
            context.console.print(
                f"{self._config.name}: the entering model has greedy {accuracy:.3f}  tokens {tokens:.1f}"
            )
        if not self._sampling.complete:
            self._sampling.run(context.console, f"{self._config.name}: samples")

    def _average(self) -> VisionLanguageModel:
        context, config = self._context, self._config
        path = short_model_path(context.config, config, context.folder, base=context.base)
        model, short = load_policy(context, self._model_path), load_policy(context, str(path)).state_dict()
        state = model.state_dict()
        with StageProgress(context.console, config.name, total=len(state)) as bar:
            averaged = average_weights(state, short, weight=config.weight, on_tensor=lambda: bar.advance({}))
        model.load_state_dict(averaged)
        return model.eval()

    def _training(self) -> SupervisedStage:
        """The training on the samples. Raises UserError where they hold nothing to train on."""
        context, config = self._context, self._config
        groups = self._sampling.answers(max_tokens=config.max_tokens)
        chosen = [found for found in map(shortest_correct, groups.values()) if found is not None]
        correct = [answer for group in groups.values() for answer in group if answer.correct]
        self._say_what_was_sampled(len(groups), chosen, correct)
        tasks = {task.id: task for task in self._tasks}
        torch.manual_seed(context.seed(config))  # sampling may have drawn numbers, or an earlier process did it
        if config.method == "shortest":
            return ShortestTraining(context, config, self._model_path, tasks, chosen)
        pairs = [pair for group in groups.values() for pair in preference_pairs(group)]
        if not pairs:
            raise UserError(
                f"{config.name}: no question has a correct sample and a longer one that is wrong, or correct and "
                f"{LONGER} times as long, so there is no pair; raise samples or prompts, or use method: shortest"
            )
        context.console.print(f"{config.name}: {counted(len(pairs), 'pair')}")
        return PreferenceTraining(context, config, self._model_path, tasks, pairs)

    def _say_what_was_sampled(
        self, questions: int, chosen: Sequence[SampledAnswer], correct: Sequence[SampledAnswer]
    ) -> None:
        config = self._config
        if not chosen:
            raise UserError(
                f"{config.name}: none of {counted(config.samples, 'sample')} of "
                f"{counted(questions, 'question')} is correct and complete, "
                "so there is nothing to train on; train the model further, raise evaluation.max_new_tokens, or take "
                "easier questions"
            )
        self._context.console.print(
            f"{config.name}: {len(chosen)} of {counted(questions, 'question')} have a correct "
            f"sample; the shortest ones have "
            f"{np.mean([len(own) for own in chosen]):.1f} tokens, all correct ones "
            f"{np.mean([len(own) for own in correct]):.1f}"
        )
