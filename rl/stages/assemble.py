"""The RL stage of a run, put together from its recipe."""

from __future__ import annotations

from contextlib import closing

from configs.rl import RLConfig
from kimi_vl import (
    KimiVLForConditionalGeneration,
)
from rl.ahead import Ahead
from rl.console import StageProgress
from rl.evaluate import VALIDATION_SEED, request_seed
from rl.folder import STAGES
from rl.gather import Gatherer
from rl.learner import Learner, LearnerConfig
from rl.loop import Loop
from rl.parts import Parts, load_policy
from rl.rollout_log import RolloutLog
from rl.stages.reinforce import ReinforceStage
from rl.sync import USUAL_THRESHOLD, WeightSync, parity_prompts
from rollouts.samplers import build_sampler
from rollouts.tasks.mixture import held_out
from rollouts.types import Prompt


def reinforce(
    parts: Parts, stage: RLConfig, model: KimiVLForConditionalGeneration
) -> tuple[bool, KimiVLForConditionalGeneration]:
    """Run the RL stage; return whether it was resumed, and the model with the best validation accuracy."""
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
        seed=config.seed,
    )
    loop = _loop(parts, stage, Learner(model, learner_config, barred_ids=parts.barred_ids))
    folder = parts.folder.stage("rl")
    stage_run = ReinforceStage(
        loop,
        folder=folder,
        validation=_validation(parts),
        evaluation=config.evaluation,
        metrics=parts.metrics,
        say=parts.console.print,
    )
    start = stage_run.restore()
    with closing(loop.gatherer), StageProgress(parts.console, "rl", total=stage.steps, done=start) as bar:

        def on_step(step: int, values: dict[str, float]) -> None:
            shown = ("accuracy", "thinking_share", "tokens_mean")
            bar.advance({name: values[name] for name in shown if name in values})

        stage_run.run(start, on_step)
    return start > 0, load_policy(parts, str(folder / "best"))


def _loop(parts: Parts, stage: RLConfig, learner: Learner) -> Loop:
    """The parts of the RL stage, put together."""
    seed = request_seed(parts.config.seed, 100)
    threshold = stage.parity_threshold
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
            threshold=USUAL_THRESHOLD[parts.config.model.dtype] if threshold is None else threshold,
            say=parts.console.print,
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
    )


def _validation(parts: Parts) -> list[Prompt]:
    """Prompts that choose the best checkpoint: the recipe's own, or the held-out ones."""
    data, limit = parts.config.data, parts.config.evaluation.validation_tasks
    if not data.validation:
        return parts.held_out[:limit]
    tasks = held_out(data.validation, limit=limit, seed=VALIDATION_SEED, base=parts.base)
    return parts.renderer.render_all(tasks)[0]
