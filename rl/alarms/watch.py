"""Applies the table of alarms after each step: raises, with patience, and takes back, with hysteresis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rl.alarms.facts import RolloutPlace, SeenRollout, rewarded_numbers, seen_rollouts, step_numbers
from rl.alarms.finding import AlarmFinding
from rl.alarms.history import History, Validation
from rl.alarms.table import ALARMS, Alarm
from rollouts.types import ScoredRollout

OVER = 0.5  # an alarm is over once its level stays below this ...
OVER_STEPS = 5  # ... for so many steps, so that it does not come and go
MOST_SHOWN = 8  # rollouts that an alarm names


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmEvent:
    """An alarm that was raised or taken back after a step."""

    step: int
    alarm: str
    event: Literal["raised", "over"]
    title: str
    evidence: str
    advice: str
    since: int  # the step after which it was raised
    rollouts: tuple[RolloutPlace, ...] = ()  # that show it, the clearest first


@dataclass(slots=True)
class _Standing:
    """Where an alarm stands."""

    bad: int = 0  # steps in a row with a level of 1
    good: int = 0  # steps in a row in which it would be over
    since: int = 0  # the step after which it was raised; 0: it is not


class AlarmWatch:
    """Looks at every step of a stage of RL. Without alarms in its table it does nothing."""

    def __init__(self, alarms: Sequence[Alarm] = ALARMS) -> None:
        self._alarms = alarms
        self._history = History()
        self._standing = {alarm.name: _Standing() for alarm in alarms}
        self._rollouts: tuple[SeenRollout, ...] = ()

    def observe(self, step: int, scored: Sequence[Sequence[ScoredRollout]], metrics: Mapping[str, float]) -> None:
        """Take in a step, counted from 1: its groups as the rollout log has them, and its metrics."""
        if not self._alarms:
            return
        self._rollouts = seen_rollouts(step, scored)
        row = step_numbers(self._rollouts, metrics)
        self._history.append(step, row)
        row |= rewarded_numbers(self._rollouts, self._history.half_reward())

    def observe_validation(self, step: int, accuracy: float, tasks: int) -> None:
        """Take in the accuracy on the validation tasks after a step."""
        if accuracy == accuracy:  # not NaN: tasks without a verdict say nothing
            self._history.checks.append(Validation(step, accuracy, tasks))

    def judge(self) -> list[AlarmEvent]:
        """What is raised and what is over after the step that was observed last."""
        found = [(alarm, alarm.rule(self._history)) for alarm in self._alarms if self._history.rows]
        events = [self._change(alarm, finding) for alarm, finding in found if finding is not None]
        return [event for event in events if event is not None]

    @property
    def raised(self) -> dict[str, int]:
        """The alarms that stand now, with the step after which each was raised."""
        return {name: standing.since for name, standing in self._standing.items() if standing.since}

    def _change(self, alarm: Alarm, finding: AlarmFinding) -> AlarmEvent | None:
        standing, step = self._standing[alarm.name], self._history.steps[-1]
        standing.bad = standing.bad + 1 if finding.level >= 1 else 0
        standing.good = standing.good + 1 if finding.level < OVER else 0
        if not standing.since and standing.bad >= alarm.patience:
            standing.since = step
            shown = _spread(alarm.shows(finding, self._history, self._rollouts))[:MOST_SHOWN]
            return self._event(alarm, finding, "raised", step, tuple(rollout.place for rollout in shown))
        if standing.since and standing.good >= OVER_STEPS:
            since, standing.since = standing.since, 0
            return self._event(alarm, finding, "over", since)
        return None

    def _event(
        self,
        alarm: Alarm,
        finding: AlarmFinding,
        event: Literal["raised", "over"],
        since: int,
        rollouts: tuple[RolloutPlace, ...] = (),
    ) -> AlarmEvent:
        return AlarmEvent(
            step=self._history.steps[-1],
            alarm=alarm.name,
            event=event,
            title=alarm.title,
            evidence=finding.evidence,
            advice=alarm.advice,
            since=since,
            rollouts=rollouts,
        )

    def state_dict(self) -> dict[str, Any]:
        """The numbers so far and where each alarm stands."""
        return {
            "history": self._history.state(),
            "standing": {name: asdict(standing) for name, standing in self._standing.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; alarms that it does not know begin quiet."""
        self._history = History.of_state(state["history"])
        for name, standing in state["standing"].items():
            if name in self._standing:
                self._standing[name] = _Standing(**standing)


def _spread(rollouts: Sequence[SeenRollout]) -> list[SeenRollout]:
    """The first rollout of each question, then the second of each, and so on: eight of one group say little."""
    seen: Counter[int] = Counter()
    ranked = []
    for rollout in rollouts:
        ranked.append((seen[rollout.place.group], rollout))
        seen[rollout.place.group] += 1
    return [rollout for _, rollout in sorted(ranked, key=lambda pair: pair[0])]
