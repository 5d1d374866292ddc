"""One step of reinforcement learning, as the paper draws it (Kimi k1.5 figure 3a)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from configs.rl import RLConfig
from rl.alarms.watch import AlarmWatch
from rl.learner.protocol import LearnerProtocol
from rl.rollout_log import RolloutLog
from rl.samples import build_samples, compute_advantages
from rl.step_metrics import StepRollouts, Stopwatch, step_metrics
from rl.throughput import Throughput
from rl.weight_sync import WeightSync
from rollouts.sources.group_building import correct_flags, groups_with_signal, make_groups, permute_rewards
from rollouts.sources.partial import min_trainable_version
from rollouts.sources.reward_shaping import shape_rewards
from rollouts.sources.rollout_pipeline import request_seed
from rollouts.sources.source import RolloutSource
from rollouts.sources.verdict_watch import VerdictWatch
from rollouts.tasks.task_samplers import TaskSampler
from rollouts.types import Group, ScoredRollout
from rollouts.workers.pool import RolloutPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """The objects that a step moves data between."""

    config: RLConfig
    task_sampler: TaskSampler
    source: RolloutSource
    pool: RolloutPool
    learner: LearnerProtocol
    log: RolloutLog
    sync: WeightSync
    seed: int
    throughput: Throughput = field(default_factory=Throughput)
    verdicts: VerdictWatch = field(default_factory=VerdictWatch)
    alarms: AlarmWatch = field(default_factory=AlarmWatch)

    def step(self, step: int) -> dict[str, float]:
        """Generate groups, compute advantages, update the policy and sync its weights. Returns the step's metrics.

        Tasks and random draws depend on the seed, the step and the state alone, so a resumed run repeats a step.
        """
        config, learner, watch = self.config, self.learner, Stopwatch()
        with watch.phase("rollout"):
            self.pool.begin_step()
            rollouts = generate_groups(config, self.task_sampler, self.source, step, watch)
            if config.colocate:
                self.pool.sleep()  # until the weight sync
            completions = [rollout for group in rollouts.scored for rollout in group]
            self.verdicts.observe(completions, where=f"{config.name}, step {step + 1}", last=step + 1 == config.steps)
            groups = rollouts.groups
            if config.shuffle_rewards:
                groups = permute_rewards(groups, seed=request_seed(self.seed + 1, step))
        with watch.phase("update"):
            trained = groups_with_signal(groups, config)
            min_version = min_trainable_version(config.partial, learner.version)
            with watch.phase("learner"):
                outputs = learner.model_outputs(trained, min_version)  # log-probs and values before the update
            advantages = compute_advantages(trained, config, outputs, min_version=min_version)
            samples = build_samples(trained, config, outputs, advantages, min_version=min_version)
        with watch.phase("record"):
            self.log.begin(step + 1, (*rollouts.scored, *rollouts.report.stale), groups, samples)
        with watch.phase("update"):
            metrics = step_metrics(rollouts, samples, config)
            with watch.phase("learner"):
                metrics |= learner.update(samples)  # loss, gradient and optimizer step of each minibatch
        with watch.phase("publish"):
            if config.colocate:
                torch.cuda.empty_cache()  # PyTorch keeps what the update freed, and waking engines need it
            metrics |= self.sync.publish()
        with watch.phase("record"):
            metrics |= self.task_sampler.metrics() | self.pool.metrics() | {"version": float(learner.version)}
            metrics |= self.throughput.metrics(rollouts.scored, samples, watch, self.pool, learner)
            self.alarms.observe(step + 1, rollouts.scored, metrics)
        return metrics | watch.metrics()


def generate_groups(
    config: RLConfig, task_sampler: TaskSampler, source: RolloutSource, step: int, watch: Stopwatch
) -> StepRollouts:
    """Choose tasks, generate rollouts and score them; repeat while groups lack signal and tasks are left."""
    groups: list[Group] = []
    scored: list[tuple[ScoredRollout, ...]] = []
    task_sampler.begin_step(step)
    for upcoming in source.begin_step(step):  # only `step` itself in a synchronous run
        tasks = task_sampler.draw(upcoming, config.prompts_per_step)
        source.submit(tasks, step=upcoming)
    with watch.phase("generate"):
        finished = source.next_groups(step)
    while True:
        scores = [group.scored() for group in finished]
        new = make_groups([group.prompt for group in finished], scores)
        new = [shape_rewards(group, config, step=step) for group in new]
        task_sampler.observe([(group.prompt.task, correct_flags(group)) for group in new])
        groups, scored = groups + new, scored + scores
        missing = config.prompts_per_step - len(groups_with_signal(groups, config)) - source.unfinished
        tasks = task_sampler.refill(missing) if missing > 0 else []  # dynamic sampling (DAPO §3.2)
        if not tasks:
            return StepRollouts(groups=tuple(groups), scored=tuple(scored), report=source.report(step))
        submitted = source.submit(tasks, step=step)
        with watch.phase("generate"):
            finished = source.wait_for(submitted)


def run_steps(loop: Loop, *, start: int, after_step: Callable[[int, dict[str, float]], None]) -> None:
    """Run steps `start` to the end of the recipe; `after_step` records, evaluates and saves."""
    for step in range(start, loop.config.steps):
        after_step(step, loop.step(step))
