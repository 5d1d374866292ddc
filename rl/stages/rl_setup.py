"""The RL stage of a run, put together from its recipe."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch

from configs.load import dump_recipe
from configs.rl import RLConfig
from configs.single_update import single_update_note
from rl.distributed.learner_group import LearnerGroup, RankSpec
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.lora import prepare_training
from rl.learner.skipped_updates import SkippedUpdates
from rl.learner.trainer import Trainer
from rl.rollout_log import RolloutLog
from rl.run.context import RunContext, load_policy
from rl.run.folder import STAGES
from rl.run.progress import StageProgress
from rl.stages.rl import ReinforceStage
from rl.step import Loop
from rl.weight_sync import USUAL_THRESHOLD, WeightSync, parity_prompts
from rollouts.model_family import VisionLanguageModel
from rollouts.sources.rollout_pipeline import request_seed
from rollouts.sources.window import WindowedSource
from rollouts.tasks.curriculum import build_sampler


def reinforce(context: RunContext, stage: RLConfig, model_path: str) -> tuple[bool, VisionLanguageModel]:
    """Run the RL stage on the model in `model_path`; return whether it was resumed, and the model with the best
    validation accuracy.
    """
    if (note := single_update_note(stage.loss, updates=stage.epochs * stage.minibatches)) is not None:
        context.console.print(note, highlight=False)
    skipped = SkippedUpdates((context.folder.stage("rl") / "skipped").resolve(), recipe=dump_recipe(context.config))
    learner = _learner(context, stage, model_path, skipped)
    try:
        resumed = _run(context, stage, learner, skipped)
    finally:
        learner.close()
    return resumed, load_policy(context, str(context.folder.stage("rl") / "best"))


def _learner(context: RunContext, stage: RLConfig, model_path: str, skipped: SkippedUpdates) -> Trainer:
    """The learner in this process, or on the recipe's ranks; on one rank too where several left a checkpoint."""
    config = context.config
    learner_config = LearnerConfig(
        loss=stage.loss,
        optimizer=stage.optimizer,
        temperature=stage.sampling.temperature,
        total_steps=stage.steps * stage.epochs * stage.minibatches,
        max_new_tokens=stage.sampling.max_new_tokens,
        epochs=stage.epochs,
        minibatches=stage.minibatches,
        micro_batch_tokens=stage.micro_batch_tokens,
        spike_threshold=stage.spike_threshold,
        seed=config.seed,
    )
    sharded = any((context.folder.stage("rl") / "checkpoints").glob("step-*.shards"))
    if stage.ranks.count > 1 or sharded:
        spec = RankSpec(
            model_path=str(Path(model_path).resolve()) if Path(model_path).exists() else model_path,
            model=config.model,
            ranks=stage.ranks,
            learner=learner_config,
            barred_ids=context.barred_ids,
            random=torch.get_rng_state(),
            skipped=skipped,
            threads=config.threads or 1,
        )
        return LearnerGroup(spec)
    model = load_policy(context, model_path, train=True)
    prepare_training(model, config.model, base=model_path)
    return Learner(model, learner_config, barred_ids=context.barred_ids, on_skip=skipped.keep)


def _run(context: RunContext, stage: RLConfig, learner: Trainer, skipped: SkippedUpdates) -> bool:
    """Run the remaining steps; whether some were done before."""
    loop = _loop(context, stage, learner)
    folder = context.folder.stage("rl")
    stage_run = ReinforceStage(
        loop,
        folder=folder,
        pipeline=context.pipeline,
        validation=context.validation,
        evaluation=context.config.evaluation,
        metrics=context.metrics,
        say=context.console.print,
        skipped=skipped,
    )
    start = stage_run.restore()
    with closing(loop.source), StageProgress(context.console, "rl", total=stage.steps, done=start) as bar:

        def on_step(step: int, values: dict[str, float]) -> None:
            shown = ("accuracy", "thinking_share", "tokens_mean")
            bar.advance({name: values[name] for name in shown if name in values})

        stage_run.run(start, on_step)
    return start > 0


def _loop(context: RunContext, stage: RLConfig, learner: Trainer) -> Loop:
    """The context of the RL stage, put together."""
    seed = request_seed(context.config.seed, 100)
    threshold = stage.parity_threshold
    dtype = stage.ranks.compute_dtype or context.config.model.dtype
    return Loop(
        config=stage,
        curriculum=build_sampler(stage.sampler, context.mixture(STAGES.index("rl")), seed=seed, steps=stage.steps),
        source=WindowedSource(stage, context.pipeline, context.pool, seed=seed),
        pool=context.pool,
        learner=learner,
        log=RolloutLog(context.folder.stage("rl") / "rollouts"),
        sync=WeightSync(
            pool=context.pool,
            learner=learner,
            prompts=parity_prompts(context.renderer),
            sampling=stage.sampling,
            threshold=USUAL_THRESHOLD[dtype] if threshold is None else threshold,
            say=context.console.print,
            typical=dtype == "bfloat16",
        ),
        seed=seed,
    )
