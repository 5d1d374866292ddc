"""The table of alarms."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rl.alarms import reward_rules, shown, training_rules
from rl.alarms.finding import AlarmFinding
from rl.alarms.history import History


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One alarm: when it is raised, which rollouts show it, and what to do."""

    name: str
    title: str
    rule: Callable[[History], AlarmFinding | None]  # None: there is nothing to judge by
    shows: shown.Shows
    advice: str
    patience: int = 3  # steps in a row with a level of 1 before it is raised


ALARMS = (
    Alarm(
        name="rewarded_but_wrong",
        title="the reward is being hacked",
        rule=reward_rules.rewarded_but_wrong,
        shows=shown.rewarded_wrong,
        advice="read these completions: what earns the reward is in the text; mend the reward, try it with thinkvl "
        "rescore on the log, and go back to a checkpoint before the alarm",
    ),
    Alarm(
        name="held_out_falls",
        title="the reward rises and the validation accuracy falls",
        rule=reward_rules.held_out_falls,
        shows=shown.most_rewarded,
        advice="read the most rewarded completions; if they are sound the policy overfits: take more tasks, fewer "
        "epochs, or stop at the best checkpoint",
        patience=1,
    ),
    Alarm(
        name="format_without_answer",
        title="the format is satisfied and the answers are wrong",
        rule=reward_rules.format_without_answer,
        shows=shown.wrong,
        advice="lower the weight of the format, or begin with easier tasks: the format is all that the policy is "
        "rewarded for",
    ),
    Alarm(
        name="one_answer",
        title="one answer is given to all questions",
        rule=reward_rules.one_answer,
        shows=shown.favourites,
        advice="balance the references of the data set, and look whether the reward takes this answer for others",
    ),
    Alarm(
        name="source_starves",
        title="a data source trains nothing, or is forgotten",
        rule=reward_rules.source_starves,
        shows=shown.of_source,
        advice="give the source easier tasks or worked solutions, raise its weight, or choose another rl.task_sampler",
    ),
    Alarm(
        name="entropy_collapses",
        title="the entropy has collapsed",
        rule=training_rules.entropy_collapses,
        shows=shown.alike,
        advice="go back to a checkpoint before; lower the learning rate, raise rl.sampling.temperature, or take an "
        "algorithm that clips less above (dapo, cispo)",
    ),
    Alarm(
        name="length_explodes",
        title="completions are cut off, or get longer and not better",
        rule=training_rules.length_explodes,
        shows=shown.longest,
        advice="add rl.length_reward, set rl.overlong_buffer, or end loops with rl.sampling.repeat_window; if the "
        "thinking is sound, raise rl.sampling.max_new_tokens",
    ),
    Alarm(
        name="no_signal",
        title="most groups have no signal",
        rule=training_rules.no_signal,
        shows=shown.alike,
        advice="if most are wrong take easier tasks or more worked solutions first, if most are correct harder ones; "
        "rl.task_sampler.name: dynamic or prioritized chooses among the tasks that there are",
    ),
    Alarm(
        name="verifiers_fail",
        title="verifiers fail",
        rule=training_rules.verifiers_fail,
        shows=shown.failed,
        advice="the book shows the reason under each of them; thinkvl audit RECIPE finds bad references",
    ),
    Alarm(
        name="not_finite",
        title="an update was skipped, or a number is not finite",
        rule=training_rules.not_finite,
        shows=shown.unlikely,
        advice="thinkvl replay RUN STEP runs the update again and names the first module that went wrong",
        patience=1,
    ),
    Alarm(
        name="engine_apart",
        title="engine and learner are apart",
        rule=training_rules.engine_apart,
        shows=shown.unlikely,
        advice="lower the learning rate or take fewer minibatches; with one update a step the two compute different "
        "things: set rl.engine_dtype, rl.router_replay or rl.loss.correction",
    ),
    Alarm(
        name="clipped",
        title="most of the update is clipped away",
        rule=training_rules.clipped,
        shows=shown.unlikely,
        advice="lower the learning rate, or take fewer epochs or minibatches of the same rollouts",
    ),
    Alarm(
        name="workers_fail",
        title="workers hang again and again",
        rule=training_rules.workers_fail,
        shows=shown.nothing,
        advice="failures/ and quarantine.json in the run's folder have the stacks and the tasks; thinkvl doctor RUN "
        "reads them",
        patience=1,
    ),
    Alarm(
        name="stale",
        title="the data are stale",
        rule=training_rules.stale,
        shows=shown.oldest,
        advice="lower rl.asynchronous.max_staleness or rl.sampling.max_new_tokens, or add workers; with partial "
        "rollouts raise rl.partial.budget",
    ),
)
