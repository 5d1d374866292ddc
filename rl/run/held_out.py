"""Evaluates a model on a stage's held-out tasks with the run's workers."""

from __future__ import annotations

from configs.stage import StageConfig
from rl.learner.weight_stream import weight_stream
from rl.run.context import RunContext
from rl.run.evaluate import NO_TASKS, EvalResult, evaluate, evaluation_sampling
from rl.run.scoring import scoring_stage
from rollouts.model_family import VisionLanguageModel
from rollouts.types import ScoredRollout


def evaluate_model(
    context: RunContext, stage: StageConfig, model: VisionLanguageModel, *, samples: int | None = None
) -> tuple[EvalResult, list[ScoredRollout]]:
    """Publish `model` to the workers and evaluate it on the stage's held-out tasks; `NO_TASKS` where it has none.

    `samples` is the number of sampled completions for each task; None is the recipe's.
    """
    prompts = context.inputs[stage.name].held_out
    if not prompts:
        return NO_TASKS, []
    context.pool.publish(weight_stream(model, context.pool.dtype), version=context.pool.version + 1)
    trained = scoring_stage(context.config, stage)
    return evaluate(
        context.pipeline(stage),
        prompts,
        sampling=evaluation_sampling(trained.sampling if trained else None, context.config.evaluation),
        samples=context.config.evaluation.samples if samples is None else samples,
        seed=context.config.seed,
    )
