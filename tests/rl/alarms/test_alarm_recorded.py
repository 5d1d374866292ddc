"""Alarms on runs that were trained: quickstart and recipe of three seeds, and controls on shuffled rewards."""

import json
from pathlib import Path

import pytest

from rl.alarms.watch import AlarmWatch

RECORDED = Path(__file__).with_name("recorded")


def events_of(name):
    """What the alarms say of a recorded stage: the numbers that they keep of each step, to four digits."""
    run = json.loads((RECORDED / f"{name}.json").read_text(encoding="utf-8"))
    checks = {step: (accuracy, tasks) for step, accuracy, tasks in run["checks"]}
    watch, events = AlarmWatch(), []
    watch.observe_validation(0, *checks[0])
    for at in range(run["steps"]):
        row = {name: column[at] if isinstance(column, list) else column for name, column in run["numbers"].items()}
        row = {name: float("nan") if value is None else value for name, value in row.items() if value != "absent"}
        watch._history.append(at + 1, row)
        if at + 1 in checks:
            watch.observe_validation(at + 1, *checks[at + 1])
        events += watch.judge()
    return events


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("recipe", ["quickstart", "recipe"])
def test_healthy_runs_raise_nothing(recipe, seed):
    assert events_of(f"{recipe}-seed-{seed}") == []


@pytest.mark.parametrize(
    ("seed", "found"),
    [
        (0, {"length_explodes", "one_answer", "no_signal"}),
        (1, {"length_explodes", "one_answer", "no_signal"}),
        (2, {"no_signal", "one_answer", "not_finite"}),
    ],
)
def test_runs_on_shuffled_rewards_raise_alarms(seed, found):
    events = events_of(f"shuffled-seed-{seed}")
    assert {event.alarm for event in events} == found
    assert min(event.step for event in events) <= 25
