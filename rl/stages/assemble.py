"""The RL stage of a run, put together from its recipe."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import torch

from configs.load import dump_recipe
from configs.rl import RLConfig
from kimi_vl import KimiVLForConditionalGeneration
from rl.adapters import prepare_training
from rl.ahead import Ahead
from rl.console import StageProgress
from rl.evaluate import request_seed
from rl.folder import STAGES
from rl.gather import Gatherer
from rl.learner import Learner, LearnerConfig
from rl.loop import Loop
from rl.partial import PartialRollouts
from rl.parts import Parts, load_policy
from rl.ranks.group import LearnerGroup, RankSpec
from rl.rollout_log import RolloutLog
from rl.spikes import SkippedUpdates
from rl.stages.reinforce import ReinforceStage
from rl.sync import USUAL_THRESHOLD, WeightSync, parity_prompts
from rollouts.samplers import build_sampler


def reinforce(parts: Parts, stage: RLConfig, model_path: str) -> tuple[bool, KimiVLForConditionalGeneration]:
    """Run the RL stage on the model in `model_path`; return whether it was resumed, and the model with the best
    validation accuracy.
    """
    skipped = SkippedUpdates((parts.folder.stage("rl") / "skipped").resolve(), recipe=dump_recipe(parts.config))
    learner = _learner(parts, stage, model_path, skipped)
    try:
        resumed = _run(parts, stage, learner, skipped)
    finally:
        learner.close()
    return resumed, load_policy(parts, str(parts.folder.stage("rl") / "best"))


def _learner(parts: Parts, stage: RLConfig, model_path: str, skipped: SkippedUpdates) -> Learner | LearnerGroup:
    """The learner in this process, or on the recipe's ranks; on one rank too where several left a checkpoint."""
    config = parts.config
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
    sharded = any((parts.folder.stage("rl") / "checkpoints").glob("step-*.shards"))
    if stage.ranks.count > 1 or sharded:
        spec = RankSpec(
            model_path=str(Path(model_path).resolve()) if Path(model_path).exists() else model_path,
            model=config.model,
            ranks=stage.ranks,
            learner=learner_config,
            barred_ids=parts.barred_ids,
            random=torch.get_rng_state(),
            skipped=skipped,
            threads=config.threads or 1,
        )
        return LearnerGroup(spec)
    model = load_policy(parts, model_path, train=True)
    prepare_training(model, config.model, base=model_path)
    return Learner(model, learner_config, barred_ids=parts.barred_ids, on_skip=skipped.keep)


def _run(parts: Parts, stage: RLConfig, learner: Learner | LearnerGroup, skipped: SkippedUpdates) -> bool:
    """Run the remaining steps; whether some were done before."""
    loop = _loop(parts, stage, learner)
    folder = parts.folder.stage("rl")
    stage_run = ReinforceStage(
        loop,
        folder=folder,
        validation=parts.validation,
        evaluation=parts.config.evaluation,
        metrics=parts.metrics,
        say=parts.console.print,
        skipped=skipped,
    )
    start = stage_run.restore()
    with closing(loop.gatherer), StageProgress(parts.console, "rl", total=stage.steps, done=start) as bar:

        def on_step(step: int, values: dict[str, float]) -> None:
            shown = ("accuracy", "thinking_share", "tokens_mean")
            bar.advance({name: values[name] for name in shown if name in values})

        stage_run.run(start, on_step)
    return start > 0


def _loop(parts: Parts, stage: RLConfig, learner: Learner | LearnerGroup) -> Loop:
    """The parts of the RL stage, put together."""
    seed = request_seed(parts.config.seed, 100)
    threshold = stage.parity_threshold
    dtype = stage.ranks.compute_dtype or parts.config.model.dtype
    return Loop(
        config=stage,
        gatherer=_gatherer(parts, stage, seed),
        pool=parts.pool,
        learner=learner,
        log=RolloutLog(parts.folder.stage("rl") / "rollouts"),
        sync=WeightSync(
            pool=parts.pool,
            learner=learner,
            prompts=parity_prompts(parts.renderer),
            sampling=stage.sampling,
            threshold=USUAL_THRESHOLD[dtype] if threshold is None else threshold,
            say=parts.console.print,
            typical=dtype == "bfloat16",
        ),
        seed=seed,
    )


def _gatherer(parts: Parts, stage: RLConfig, seed: int) -> Gatherer | Ahead:
    sampler = build_sampler(stage.sampler, parts.mixture(STAGES.index("rl")), seed=seed, steps=stage.steps)
    if stage.asynchronous is not None:
        return Ahead(
            stage,
            stage.asynchronous,
            sampler=sampler,
            renderer=parts.renderer,
            pool=parts.pool,
            scorer=parts.scorer,
            decode=parts.decode,
            seed=seed,
        )
    return Gatherer(
        config=stage,
        sampler=sampler,
        renderer=parts.renderer,
        generate=parts.pool.generate,
        scorer=parts.scorer,
        decode=parts.decode,
        seed=seed,
        partial=PartialRollouts(stage.partial, parts.pool.generate, steps=stage.steps) if stage.partial else None,
    )
