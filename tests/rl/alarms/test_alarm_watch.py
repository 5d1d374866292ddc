"""Patience, hysteresis, resuming to the bit, and places that are those of the rollout log."""

import io
import math

import pytest
import torch
from alarm_helpers import make_groups, make_prompt, make_rollout, metrics_of, run

from rl.alarms.facts import seen_rollouts
from rl.alarms.history import MOST_STEPS, History, certainly_more
from rl.alarms.watch import OVER_STEPS, AlarmWatch
from rl.rollout_log import RolloutLog, read_step
from rl.safe_load import load_state


def lagging(*, faulty):
    """A run that is eight versions behind in the steps of `faulty`."""

    def make(step):
        return make_groups(step), {"staleness_mean": 60.0 if step in faulty else 0.0}

    return make


def spikes(*, faulty):
    def make(step):
        return make_groups(step), {"loss": math.nan if step in faulty else 0.1}

    return make


def test_an_alarm_is_over_after_steps_without_it_and_may_come_back():
    events = run(40, spikes(faulty={5, 6, 8, 30}))
    assert [(e.step, e.event, e.since) for e in events] == [
        (5, "raised", 5),
        (8 + OVER_STEPS, "over", 5),
        (30, "raised", 30),
        (30 + OVER_STEPS, "over", 30),
    ]


def test_a_fault_that_comes_and_goes_is_said_once():
    events = run(60, lagging(faulty=set(range(10, 60, 3))))
    assert [e.event for e in events] == ["raised"]


def with_lags(lags):
    return lambda step: (make_groups(step), {"staleness_mean": lags.get(step, 0.0)})


def test_a_limit_that_is_passed_in_two_steps_is_no_alarm():
    """Of five steps the mean of 25 and 25 is above 8, in the two windows that hold both."""
    assert run(30, with_lags({10: 25.0, 13: 25.0})) == []
    assert [e.step for e in run(30, with_lags({10: 25.0, 12: 25.0}))] == [14, 21]


def test_an_alarm_stands_while_its_level_is_above_half():
    lags = {**dict.fromkeys(range(10, 16), 20.0), **dict.fromkeys(range(16, 60), 5.0)}
    assert [e.event for e in run(50, with_lags(lags))] == ["raised"]


@pytest.mark.parametrize(("count", "certain"), [(10, False), (60, False), (200, True)])
def test_a_difference_of_few_rollouts_is_chance(count, certain):
    assert certainly_more(0.5, count, 0.25, count) is certain
    assert not certainly_more(0.25, count, 0.5, count)


@pytest.mark.parametrize("cut", [7, 12, 20])
def test_a_run_that_was_resumed_says_what_it_would_have_said(cut):
    make = lagging(faulty=set(range(10, 16)))
    whole, watch = run(40, make), AlarmWatch()
    events = run(cut, make, watch=watch)
    file = io.BytesIO()
    torch.save(watch.state_dict(), file)
    file.seek(0)
    again = AlarmWatch()
    again.load_state_dict(load_state(file))
    assert again.state_dict() == watch.state_dict()
    for step in range(cut + 1, 41):
        scored, others = make(step)
        again.observe(step, scored, metrics_of(scored, **others))
        events += again.judge()
    assert events == whole
    assert [e.event for e in events] == ["raised", "over"]


def test_a_step_without_rollouts_and_metrics_is_no_fault():
    watch = AlarmWatch()
    for step in range(1, 20):
        watch.observe(step, [[], []], {"rollouts": 0.0, "verifier_failures": 0.0})
        assert watch.judge() == []


def test_nothing_is_kept_without_alarms():
    watch = AlarmWatch(())
    assert run(10, spikes(faulty={5}), watch=watch) == []
    assert watch.state_dict()["history"]["rows"] == []


def test_places_are_those_of_the_rollout_log(tmp_path):
    scored = [[], [make_rollout(make_prompt(1), 0), make_rollout(make_prompt(1), 1)], [make_rollout(make_prompt(2), 0)]]
    RolloutLog(tmp_path).write(3, scored, [], [])
    rows = read_step(tmp_path / "step-000003.parquet")
    places = [seen.place for seen in seen_rollouts(3, scored)]
    assert [(p.step, p.group, p.sample) for p in places] == [(r["step"], r["group"], r["sample"]) for r in rows]


def test_the_rollouts_that_are_named_are_of_many_questions():
    (event, *_) = run(10, spikes(faulty={5}))
    assert len({place.group for place in event.rollouts}) == len(event.rollouts) == 8


def test_the_state_stays_small():
    history = History()
    for step in range(MOST_STEPS + 50):
        history.append(step, {"reward": 0.5, "right": 1.0, "right_reward": 1.0, "wrong": 1.0, "wrong_reward": 0.0})
    assert (len(history.rows), history.steps[0]) == (MOST_STEPS, 50)
    assert history.half_reward() == pytest.approx(0.6)
