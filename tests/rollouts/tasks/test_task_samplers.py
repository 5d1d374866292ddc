"""Samplers: what they draw follows from seed, step and state; shares and borders against hand-computed ones."""

import itertools
import json
from collections import Counter

import numpy as np
import pytest

from configs.data import SourceConfig
from configs.task_sampler import TaskSamplerConfig
from rollouts.tasks.dataset import DataSetError
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.success_rates import SuccessRates
from rollouts.tasks.task_samplers import TASK_SAMPLERS, build_task_sampler


@pytest.fixture
def data(tmp_path):
    """A file of 40 tasks whose difficulty is their number / 40, in mixed order."""
    rows = [
        {"id": f"n{i:02}", "question": f"{i}+0?", "answer": str(i), "difficulty": i / 40}
        for i in sorted(range(40), key=lambda i: i * 17 % 40)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def make(data, tmp_path):
    def made(name, *, seed=5, steps=20, **options):
        mixture = TaskMixture([SourceConfig(use=str(data))], seed=3, base=tmp_path)
        return build_task_sampler(TaskSamplerConfig(name=name, **options), mixture, seed=seed, steps=steps)

    return made


def numbers(tasks):
    return [int(task.answer) for task in tasks]


@pytest.mark.parametrize("name", TASK_SAMPLERS)
def test_state_brings_back_every_draw(make, name):
    """A sampler that starts from the saved state draws what the other goes on with; another seed draws otherwise."""
    first = make(name)
    for step in range(4):
        tasks = first.draw(step, 6)
        first.observe([(t, [int(t.answer) % 3 > 0, True]) for t in tasks])
        tasks = first.refill(2)
    state = json.loads(json.dumps(first.state_dict()))
    second = make(name)
    second.load_state_dict(state)
    assert second.success.metrics() == first.success.metrics()
    for step in range(4, 9):
        for sampler in (first, second):
            sampler.begin_step(step)
        drawn = first.draw(step, 6)
        assert drawn == second.draw(step, 6)
        assert first.refill(3) == second.refill(3)
        for sampler in (first, second):
            sampler.observe([(t, [True]) for t in drawn])
    assert first.state_dict() == second.state_dict()


def test_uniform_is_the_mixture_as_it_is(make, data, tmp_path):
    mixture = TaskMixture([SourceConfig(use=str(data))], seed=3, base=tmp_path)
    sampler = make("uniform")
    assert [sampler.draw(step, 10) for step in range(8)] == [mixture.draw(step, 10) for step in range(8)]
    assert sampler.refill(5) == []


def test_dynamic_walks_on_and_stops_at_its_bound(make):
    sampler = make("dynamic", rounds=2)
    seen = []
    for step in range(4):
        sampler.begin_step(step)
        seen += numbers(sampler.draw(step, 6)) + numbers(sampler.refill(2)) + numbers(sampler.refill(2))
        assert sampler.refill(2) == []
        assert sampler.metrics()["task_sampler/refill_rounds"] == 2.0
    assert sorted(seen) == list(range(40)), "one epoch: nothing is left out, nothing comes twice"


def test_priority_is_one_minus_the_success_rate(make):
    """Rates 0, 0.5 and 1 on three tasks of four; k1.5's shares are 1, 0.5 and (nearly) none."""
    sampler = make("prioritized", pool=4)
    tasks = {t.id: t for t in map(sampler.mixture.at, sampler.places)}
    ids = list(tasks)
    for task_id, correct in zip(ids, ([False] * 4, [True, False], [True] * 4, [False, True, True, True]), strict=True):
        sampler.observe([(tasks[task_id], correct)])
    drawn = Counter(sampler.draw(step, 1)[0].id for step in range(1500))
    weights = [1.0, 0.5, 0.02, 0.25]
    for task_id, weight in zip(ids, weights, strict=True):
        assert drawn[task_id] / 1500 == pytest.approx(weight / sum(weights), abs=0.04)
    assert len({t.id for t in sampler.draw(0, 4)}) == 4, "no task twice in a step"


def test_a_task_that_was_never_asked_comes_before_one_that_is_half_solved(make):
    sampler = make("prioritized")
    for task in [t for t in map(sampler.mixture.at, sampler.places) if int(t.answer) < 20]:
        sampler.observe([(task, [True] * 9 + [False])])
    state, drawn = sampler.state_dict(), []
    for step in range(300):
        sampler.load_state_dict(state)  # nobody has answered, and nobody was asked
        drawn += numbers(sampler.draw(step, 4))
    assert sum(n >= 20 for n in drawn) / len(drawn) > 0.8


def test_tasks_that_never_get_a_verdict_do_not_fill_the_steps(make):
    """Of forty tasks four cannot be asked, and the policy solves the others nine times in ten."""
    sampler = make("prioritized")
    share = []
    for step in range(60):
        tasks = sampler.draw(step, 8)
        askable = [t for t in tasks if int(t.answer) >= 4]
        sampler.observe([(t, [True] * 9 + [False]) for t in askable])
        share.append(1 - len(askable) / len(tasks))
        if step == 30:
            restored = make("prioritized")
            restored.load_state_dict(sampler.state_dict())
            sampler = restored
    assert np.mean(share[20:]) < 0.06, "a tenth of the pool at a fifth of the others' chance; it was four in ten"


def test_a_curriculum_opens_by_schedule(make):
    sampler = make("curriculum", steps=20, until=0.5)
    assert [sampler.open_share(s) for s in (0, 5, 10, 19)] == [0.25, 0.625, 1.0, 1.0]
    for step in range(12):
        drawn = numbers(sampler.draw(step, 8))
        assert len(set(drawn)) == 8
        assert max(drawn) < max(8, -(-sampler.open_share(step) * 40 // 1))
    late = {n for step in range(10, 20) for n in numbers(sampler.draw(step, 8))}
    assert max(late) >= 36
    assert min(late) <= 4


def test_a_curriculum_opens_by_success(make):
    sampler = make("curriculum_by_success")
    for step in range(3):
        sampler.observe([(t, [int(t.answer) < 5] * 4) for t in sampler.draw(step, 8)])
    assert sampler.metrics()["task_sampler/open_share"] == 0.25, "the hardest open eighth, 5 to 9, is never solved"
    shares = []
    for step in range(3, 12):
        sampler.observe([(t, [True] * 3 + [False]) for t in sampler.draw(step, 8)])
        shares.append(sampler.open_share(step))
    assert shares == sorted(shares)
    assert shares[-1] > 0.75
    assert all(b - a in (0, 0.125) for a, b in itertools.pairwise(shares))


def test_a_curriculum_without_labels_is_refused(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"question": f"{i}?", "answer": str(i)}) for i in range(9)))
    mixture = TaskMixture([SourceConfig(use=str(path))], seed=3, base=tmp_path)
    with pytest.raises(
        DataSetError, match=r"rl\.task_sampler\.name = curriculum: none of the 9 tasks has a difficulty"
    ):
        build_task_sampler(TaskSamplerConfig(name="curriculum"), mixture, seed=1, steps=5)


def test_a_pool_smaller_than_a_step_is_refused(make):
    with pytest.raises(DataSetError, match=r"rl\.prompts_per_step = 5: more than the 4 tasks"):
        make("prioritized", pool=4).draw(0, 5)


def test_an_endless_source_becomes_a_pool(tmp_path):
    mixture = TaskMixture([SourceConfig(use="digit_sums")], seed=3, base=tmp_path)
    sampler = build_task_sampler(TaskSamplerConfig(name="prioritized", pool=12), mixture, seed=1, steps=5)
    drawn = {t.id for step in range(20) for t in sampler.draw(step, 4)}
    assert drawn <= set(sampler.ids)
    assert len(set(sampler.ids)) == 12


def test_success_rates_follow_the_policy():
    rates = SuccessRates()
    rates.observe("a", [])
    assert rates.rate("a") is None, "a group whose verifier failed says nothing"
    assert rates.metrics() == {}
    rates.observe("a", [True, False])
    assert rates.rate("a") == 0.5
    rates.observe("a", [True, True])
    assert rates.rate("a") == 0.75
    rates.observe("b", [False])
    assert rates.metrics() == {
        "task_sampler/tasks_seen": 2.0,
        "task_sampler/success": 0.375,
        "task_sampler/unsolved_share": 0.5,
        "task_sampler/solved_share": 0.0,
    }
    assert list(rates.table()) == ["b", "a"], "the hardest first"


def test_success_rates_are_bounded(monkeypatch):
    monkeypatch.setattr("rollouts.tasks.success_rates.MOST", 3)
    rates = SuccessRates()
    for task in "abcad":
        rates.observe(task, [True])
    assert set(rates.table()) == {"c", "a", "d"}, "b was seen longest ago"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "uniform", "pool": 5}, "pool = 5: must be left out"),
        ({"name": "prioritized", "rounds": 2}, "rounds = 2: must be left out"),
        ({"name": "dynamic", "until": 0.1}, "until = 0.1: must be left out"),
        ({"name": "curriculum", "until": 0}, "until = 0: must be in"),
    ],
)
def test_a_key_of_another_sampler_is_refused(options, told):
    with pytest.raises(ValueError, match=told):
        TaskSamplerConfig(**options)
