"""When an RL stage evaluates and saves: restore or start, run the loop, keep the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from configs.errors import UserError
from configs.schema import EvaluationConfig
from rl.alarms.records import AlarmRecords, alarm_line
from rl.alarms.watch import AlarmEvent
from rl.checkpoint import replace_folder
from rl.learner.skipped_updates import SkippedUpdates
from rl.run.evaluate import evaluate, evaluation_sampling
from rl.run.folder import write_json
from rl.run.trackers.table import Metrics
from rl.samples import make_samples, sample_metrics
from rl.stages.checkpoint_writer import CheckpointWriter
from rl.step import Loop, run_steps
from rollouts.sources.group_building import make_groups
from rollouts.sources.reward_shaping import shape_rewards
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.sources.verdict_watch import require_verdicts
from rollouts.types import Prompt, ScoredRollout

OnStep = Callable[[int, dict[str, float]], None]


class RLSchedule:
    """Drives `Loop` from the newest checkpoint to the recipe's last step.

    `folder` holds `checkpoints/`, `best/` (the weights with the best validation accuracy, as a model folder) and, at
    the end, `success.json` (the success rate of each task). `base` is the model that the stage started from;
    `on_written` is called after each checkpoint, in the thread that wrote it.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        folder: Path,
        base: str,
        on_written: Callable[[], None],
        pipeline: RolloutPipeline,
        validation: Sequence[Prompt],
        evaluation: EvaluationConfig,
        metrics: Metrics,
        say: Callable[[str], None],
        skipped: SkippedUpdates | None = None,
    ) -> None:
        self.loop, self.folder, self.validation = loop, folder, validation
        self._pipeline = pipeline
        self._evaluation, self._metrics, self._say = evaluation, metrics, say
        self._skipped = skipped
        self._checkpoints = CheckpointWriter(folder / "checkpoints", base=base, on_written=on_written)
        self._alarms = AlarmRecords(folder.parent, loop.config.name)
        self._best = -math.inf

    def restore(self) -> int:
        """Load the newest readable checkpoint, give its weights to the workers, and return the next step."""
        state = self._checkpoints.restore(self.loop.learner, self._say)
        if state is not None:
            self.loop.task_sampler.load_state_dict(state["curriculum"])
            self.loop.source.load_state_dict(state["source"])
            self.loop.alarms.load_state_dict(state["alarms"])
            self._best = state["best"]
            self._say(f"resuming {self.loop.config.name} after step {state['step']}")
        start = 0 if state is None else int(state["step"])
        self.loop.log.forget_after(start)
        self._alarms.forget_after(start)
        if self._skipped is not None:
            self._skipped.forget_after(start)
        self.loop.sync.publish()
        return start

    def run(self, start: int, on_step: OnStep) -> None:
        """Run the remaining steps.

        `on_step(step, metrics)` is called with 1-based steps, after the evaluation and the checkpoint of a step.
        Metrics of an evaluation begin with `validation/`.
        """
        if start == 0:
            self._validate(0)

        def after_step(index: int, values: dict[str, float]) -> None:
            step = index + 1
            self._checkpoints.check()
            self._metrics.write(self.loop.config.name, step, values)
            last = step == self.loop.config.steps
            checked: dict[str, float] = {}
            if last or step % self.loop.config.eval_every == 0:
                checked = self._validate(step)
            raised = self._sound_alarms()
            if last or raised or step % self.loop.config.save_every == 0:
                self._save(step)
            on_step(step, values | {f"validation/{name}": value for name, value in checked.items()})
            if raised:
                self._checkpoints.wait()
                raise UserError(_stopped(self.loop.config.name, raised))

        with self._checkpoints:
            run_steps(self.loop, start=start, after_step=after_step)
        write_json(self.folder / "success.json", self.loop.task_sampler.success.table())

    def _validate(self, step: int) -> dict[str, float]:
        """Accuracy on the validation tasks, greedy and sampled; the best mean of both replaces the folder `best`.

        Returns the metrics of the evaluation.

        Greedy accuracy alone hardly moves once the most likely answer thinks, while the policy still gets surer.
        """
        limits = evaluation_sampling(self.loop.config.sampling, self._evaluation)
        drawn: list[list[ScoredRollout]] = []
        result, greedy = evaluate(
            self._pipeline,
            self.validation,
            sampling=limits,
            samples=1,
            seed=self.loop.seed,
            on_sampled=drawn.extend,
        )
        if step == 0:
            require_verdicts(greedy, where=f"{self.loop.config.name}, validation")
        found = result.metrics() | self._critics_knowledge(drawn, step)
        self._metrics.write(f"validation/{self.loop.config.name}", step, found)
        score = (result.greedy_accuracy + result.sampled_accuracy) / 2
        self.loop.alarms.observe_validation(step, score, result.tasks)
        score = -1.0 if math.isnan(score) else score  # no verdict at all: only better than nothing
        if score >= self._best:  # the later of two equals has seen more
            self._best = score
            partial = self.folder / "best.partial"
            self.loop.learner.save(partial)
            replace_folder(partial, self.folder / "best")
            self.loop.learner.save_adapters(self.folder / "adapter")
        return found

    def _sound_alarms(self) -> list[AlarmEvent]:
        """Say and keep what the step has raised or ended. Returns the alarms that end the run, by the recipe."""
        config, events = self.loop.config, self.loop.alarms.judge()
        self._alarms.write(events)
        for event in events:
            self._say(alarm_line(config.name, event, self.folder.parent))
        return [event for event in events if event.event == "raised" and config.alarms == "stop"]

    def _critics_knowledge(self, drawn: Sequence[Sequence[ScoredRollout]], step: int) -> dict[str, float]:
        """How much of the returns of the sampled validation answers PPO's critic explains, over all their tokens."""
        config, learner = self.loop.config, self.loop.learner
        if config.loss.resolved().critic is None:
            return {}
        groups = [g for g in make_groups(self.validation, drawn) if g.rollouts]
        groups = [shape_rewards(group, config, step=max(0, step - 1)) for group in groups]  # as in the last step
        known = sample_metrics(make_samples(groups, config, learner.model_outputs(groups)))
        return {name: known[name] for name in ("explained_variance",) if name in known}

    def _save(self, step: int) -> None:
        """Begin a checkpoint, once the rollouts of `step` are on disk; its metrics are already."""
        self.loop.log.wait()
        rest = {
            "curriculum": self.loop.task_sampler.state_dict(),
            "source": self.loop.source.state_dict(),
            "alarms": self.loop.alarms.state_dict(),
            "best": self._best,
        }
        self._checkpoints.save(step, self.loop.learner, rest)


def _stopped(stage: str, raised: Sequence[AlarmEvent]) -> str:
    """Why the run ends and how it goes on."""
    titles = "; ".join(f"{event.title}: {event.advice}" for event in raised)
    return (
        f"{stage} stops after step {raised[0].step}, as {stage}.alarms = 'stop' says: {titles}. The same command goes "
        f"on from here, and does not stop for this alarm again before it is over; {stage}.alarms=warn never stops"
    )
