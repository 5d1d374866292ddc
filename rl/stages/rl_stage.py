"""A reinforcement-learning stage of a run, put together from its recipe."""

from __future__ import annotations

from contextlib import closing

from configs.load import dump_recipe
from configs.on_policy_checks import single_update_note
from configs.rl import RLConfig
from rl.alarms.table import ALARMS
from rl.alarms.watch import AlarmWatch
from rl.learner.optimizer import rounding_note
from rl.learner.protocol import LearnerProtocol
from rl.learner.skipped_updates import SkippedUpdates
from rl.rollout_log import RolloutLog
from rl.run.context import RunContext, load_policy
from rl.run.progress import StageProgress
from rl.stages.open_learner import open_rl_learner
from rl.stages.rl_schedule import RLSchedule
from rl.step import Loop
from rl.throughput import Throughput, rl_work
from rl.weight_sync import USUAL_THRESHOLD, WeightSync, parity_prompts
from rollouts.model_family import VisionLanguageModel
from rollouts.sources.reward_shaping import length_weight_note
from rollouts.sources.rollout_pipeline import request_seed
from rollouts.sources.window import WindowedSource
from rollouts.tasks.task_samplers import build_task_sampler


class RLStage:
    """Reinforcement learning from verifiable rewards: `rl.step.run_steps` on a schedule."""

    def __init__(self, context: RunContext, config: RLConfig, model_path: str) -> None:
        self._context, self._config = context, config
        self._folder = context.folder.stage(config.name)
        notes = (
            rounding_note(context.config.model, config.optimizer, stage=config.name),
            single_update_note(config.loss, updates=config.epochs * config.minibatches),
            length_weight_note(config),
        )
        for note in notes:
            if note is not None:
                context.console.print(note, highlight=False)
        recipe = dump_recipe(context.config)
        skipped = SkippedUpdates((self._folder / "skipped").resolve(), recipe=recipe)
        self._learner = open_rl_learner(context, config, model_path, skipped)
        try:
            self._schedule = _schedule(context, config, self._learner, model_path, skipped)
        except BaseException:
            self._learner.close()
            raise
        self._start = 0

    def resume(self) -> int:
        """Restore learner, task sampler, source of rollouts and random state, and give the workers the weights."""
        self._start = self._schedule.restore()
        return self._start

    def run(self) -> VisionLanguageModel:
        """Run the remaining steps; the model with the best validation accuracy."""
        bar = StageProgress(
            self._context.console,
            self._config.name,
            total=self._config.steps,
            done=self._start,
            shown=("accuracy", "thinking_share", "tokens_mean"),
            where=self._context.place_of(self._config),
        )
        with closing(self._schedule.loop.source), bar:
            self._schedule.run(self._start, lambda _, values: bar.advance(values))
        return load_policy(self._context, str(self._folder / "best"))

    def figures(self) -> dict[str, float]:
        """None of its own."""
        return {}

    def close(self) -> None:
        """End the learner's ranks."""
        self._learner.close()


def _schedule(
    context: RunContext, stage: RLConfig, learner: LearnerProtocol, model_path: str, skipped: SkippedUpdates
) -> RLSchedule:
    """The loop with its evaluations and checkpoints."""
    return RLSchedule(
        build_loop(context, stage, learner, model_path),
        folder=context.folder.stage(stage.name),
        base=context.frozen_base(model_path),
        on_written=context.copy_to_mirror,
        pipeline=context.pipeline(stage),
        validation=context.inputs[stage.name].validation,
        evaluation=context.config.evaluation,
        metrics=context.metrics,
        say=context.console.print,
        skipped=skipped,
    )


def build_loop(context: RunContext, stage: RLConfig, learner: LearnerProtocol, model_path: str) -> Loop:
    """The parts of one RL step, which trains the model in `model_path`."""
    seed = request_seed(context.seed(stage), 100)
    threshold = stage.parity_threshold
    types = {stage.ranks.compute_dtype or context.config.model.dtype, context.config.engine_dtype}
    coarsest = "bfloat16" if "bfloat16" in types else "float32"
    return Loop(
        config=stage,
        task_sampler=build_task_sampler(
            stage.decided_task_sampler, context.mixture(stage), seed=seed, steps=stage.steps
        ),
        source=WindowedSource(stage, context.pipeline(stage), context.pool, seed=seed),
        pool=context.pool,
        learner=learner,
        log=RolloutLog(context.folder.stage(stage.name) / "rollouts"),
        sync=WeightSync(
            pool=context.pool,
            learner=learner,
            prompts=parity_prompts(context.inputs[stage.name].renderer),
            sampling=stage.sampling,
            threshold=USUAL_THRESHOLD[coarsest] if threshold is None else threshold,
            say=context.console.print,
            typical=coarsest == "bfloat16",
        ),
        seed=seed,
        throughput=Throughput(work=rl_work(context.config.model, model_path, stage)),
        alarms=AlarmWatch(() if stage.alarms == "off" else ALARMS),
    )
