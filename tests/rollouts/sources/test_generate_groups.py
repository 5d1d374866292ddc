"""Generating a step whose completions are known: refilling until there is signal, its bound, tasks without answers."""

import pytest
from source_helpers import Policy, Run

from rl.step_metrics import step_metrics
from rollouts.sources.group_building import groups_with_signal


@pytest.fixture
def make(tmp_path):
    return lambda policy, **options: Run(tmp_path, policy, **options)


def test_groups_without_signal_are_refilled(make):
    """Every second task teaches: a step goes on until six do, and never asks for more than are missing."""
    policy = Policy(every=2)
    run = make(policy, name="dynamic", rounds=20)
    for step in range(3):
        policy.asked.clear()
        rollouts = run.generate(step)
        trained_groups = groups_with_signal(rollouts.groups, run.config)
        assert len(trained_groups) == 6
        missing = 6
        for requests in policy.asked:
            assert len(requests) <= missing
            missing -= sum(int(r.prompt.task.answer) % 2 == 0 for r in requests)
        seeds = [r.seed for requests in policy.asked for r in requests]
        assert len(set(seeds)) == len(seeds), "no two requests of a step share their random numbers"
        assert [g.prompt for g in rollouts.groups] == [r.prompt for requests in policy.asked for r in requests]
        assert step_metrics(rollouts, [], run.config)["rollouts"] == 2.0 * len(rollouts.groups)
        assert run.task_sampler.metrics()["task_sampler/refill_rounds"] == len(policy.asked) - 1 > 0


def test_refilling_is_bounded(make):
    policy = Policy(every=1000)
    rollouts = make(policy, name="dynamic", rounds=3).generate(0)
    assert [len(requests) for requests in policy.asked] == [6, 6, 6, 6]
    assert len(rollouts.groups) == 24 - rollouts.skipped.get("unlucky", 0)


def test_other_samplers_ask_once(make):
    policy = Policy(every=1000)
    run = make(policy, name="uniform")
    run.generate(0)
    run.generate(1)
    assert len(policy.asked) == 2
    assert run.task_sampler.metrics() == {
        "task_sampler/tasks_seen": 12.0,
        "task_sampler/success": 1.0,
        "task_sampler/unsolved_share": 0.0,
        "task_sampler/solved_share": 1.0,
    }


def test_tasks_without_answers_are_counted_and_teach_nothing(make):
    policy = Policy(every=1, dead=tuple(map(str, range(0, 60, 3))))
    run = make(policy, name="uniform", steps=10)
    steps = [run.generate(step) for step in range(10)]
    assert sum(step_metrics(s, [], run.config).get("skipped/quarantine", 0) for s in steps) == 20
    assert sum(step_metrics(s, [], run.config).get("skipped/unlucky", 0) for s in steps) == 1
    assert sum(len(groups_with_signal(s.groups, run.config)) for s in steps) == 39
    assert run.task_sampler.metrics()["task_sampler/tasks_seen"] == 39.0
    assert run.task_sampler.success.rate("0") is None
