"""Rollouts that run ahead, with workers that answer in whatever order the test says."""

import contextlib
import pickle
import threading
from types import SimpleNamespace

import pytest
from source_helpers import Policy, Run

from configs.rl import AsyncConfig
from rl.rollout_log import RolloutLog, read_rollouts
from rl.step import Loop
from rl.types import ModelOutputs
from rollouts.sources.group_building import groups_with_signal
from rollouts.types import Completion, Segment

STEPS, PROMPTS = 9, 6


class FakeDispatcher:
    """Answers one request at a time while somebody waits: `choose(running)` says which is next."""

    choose = staticmethod(min)
    submitted = None  # every request ever submitted, to all dispatchers

    def __init__(self, pool, sampling, *, on_completions, on_arrival, room):
        self.pool, self.on_completions, self.room = pool, on_completions, room
        self.lock = threading.RLock()
        self.running = {}
        FakeDispatcher.last = self

    def submit(self, requests):
        self.running.update(requests)
        self.submitted.extend(requests.values())

    def cancel(self, keys):
        for key in keys:
            self.answer(key, reason="abort")

    def answer(self, key, reason="stop"):
        request = self.running.pop(key)
        completions = [self.pool.policy.answer(request, i) for i in range(request.n)]
        segment = Segment(start=0, stop=1, version=self.pool.begun.pop(id(request), self.pool.version))
        values = {"finish_reason": reason, "segments": (segment,)}
        kept = ("token_ids", "policy_logprobs", "sampler_logprobs")
        self.on_completions(
            key, [Completion(**{name: getattr(c, name) for name in kept}, **values) for c in completions]
        )

    def wait_until(self, ready):
        while not ready():
            self.answer(self.choose(self.running))

    def depths(self):
        return 0, len(self.running)

    def close(self):
        self.running.clear()


@pytest.fixture
def build(tmp_path, monkeypatch):
    """Makes an asynchronous `Run`; the synchronous one that it is compared with is a `Run` without options."""
    monkeypatch.setattr(FakeDispatcher, "submitted", [])
    monkeypatch.setattr(FakeDispatcher, "choose", staticmethod(min))

    def made(policy, *, staleness, stale="wait", **sampler):
        options = {"asynchronous": AsyncConfig(max_staleness=staleness, stale=stale), "dispatcher": FakeDispatcher}
        return Run(tmp_path, policy, **options, **sampler)

    return made


def steps_of(run, steps=range(STEPS)):
    """What each step generates when each is trained on; the version counts the steps."""
    for step in steps:
        yield run.generate(step)
        run.pool.version += 1


def numbers(gathered):
    return [int(g.prompt.task.answer) for g in gathered.groups]


@pytest.mark.parametrize("sampler", [{"name": "dynamic", "rounds": 20}, {"name": "prioritized"}, {"name": "uniform"}])
@pytest.mark.parametrize("order", [min, max])
def test_staleness_zero_gathers_what_the_synchronous_run_does(build, tmp_path, sampler, order, monkeypatch):
    monkeypatch.setattr(FakeDispatcher, "choose", staticmethod(order))
    expected = Policy(every=2)
    sync = Run(tmp_path, expected, **sampler)
    run = build(Policy(every=2), staleness=0, **sampler)
    for step, gathered in enumerate(steps_of(run)):
        wanted = sync.generate(step)
        assert numbers(gathered) == numbers(wanted)
        assert [g.rewards for g in gathered.groups] == [g.rewards for g in wanted.groups]
        assert dict(gathered.report.skipped) == dict(wanted.report.skipped)
        assert run.task_sampler.metrics() == sync.task_sampler.metrics()
    seeds = [r.seed for requests in expected.asked for r in requests]
    assert [r.seed for r in FakeDispatcher.submitted] == seeds
    assert FakeDispatcher.last.room is None, "all at once, as a synchronous run deals"


def test_admission_is_bounded_and_batches_are_those_drawn(build, tmp_path, monkeypatch):
    """The last that was asked is answered first, and still each step learns from its own tasks, in order."""
    monkeypatch.setattr(FakeDispatcher, "choose", staticmethod(max))
    sync = Run(tmp_path, Policy(every=2))
    run = build(Policy(every=2), staleness=2)
    trained = 0
    for step, gathered in enumerate(steps_of(run)):
        in_flight = len(FakeDispatcher.submitted) - trained
        unlucky = 1  # the task that cannot be rendered
        assert (2 + 1) * PROMPTS - unlucky <= in_flight <= (2 + 1) * PROMPTS or step >= STEPS - 2
        assert numbers(gathered) == numbers(sync.generate(step))
        trained += len(gathered.groups)
        assert gathered.report.metrics["staleness_max"] <= 2
        assert (
            gathered.report.metrics["queue/ready"] + gathered.report.metrics["queue/running"]
            == len(FakeDispatcher.submitted) - trained
        )
    assert trained == len(FakeDispatcher.submitted) == STEPS * PROMPTS - 1


def test_staleness_is_counted_from_the_oldest_token(build):
    run = build(Policy(every=2), staleness=3)
    seen = []
    for gathered in steps_of(run):
        seen.append(gathered.report.metrics["staleness_mean"])
        for request in FakeDispatcher.last.running.values():
            run.pool.begun.setdefault(id(request), run.pool.version)  # the workers have begun with it
    assert seen[:4] == [0.0, 1.0, 2.0, 3.0]
    assert seen[4:] == [3.0] * 5, "asked at version s - 3, begun in that step, trained on at version s"


def test_slow_groups_are_dropped_and_asked_anew(build, monkeypatch):
    """One task in five is slow: nobody waits for it, its answers are thrown away when too old, and it comes back."""
    slow = {n for n in range(60) if n % 5 == 0}
    held = {}

    def reluctant(running):
        quick = [key for key, r in running.items() if int(r.prompt.task.answer) not in slow or held.get(r.seed)]
        return min(quick or running)

    monkeypatch.setattr(FakeDispatcher, "choose", staticmethod(reluctant))
    run = build(Policy(every=2), staleness=1, stale="drop")
    trained, aborted, drawn = [], 0, set()
    for step, gathered in enumerate(steps_of(run)):
        trained += numbers(gathered)
        aborted += gathered.report.dropped_tokens.get("aborted", 0)
        assert gathered.report.metrics["staleness_max"] <= 1
        drawn |= {int(r.prompt.task.answer) for r in FakeDispatcher.submitted}
        if step < STEPS - 1:
            assert len(gathered.groups) == PROMPTS
    assert aborted > 0
    assert len(trained) == len(set(trained)) == STEPS * PROMPTS - 1, "none twice"
    assert set(trained) == drawn, "none lost"
    again = [r for r in FakeDispatcher.submitted if int(r.prompt.task.answer) in slow]
    assert len({r.seed for r in again}) == len(again) > len({r.prompt.task.id for r in again})


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize(("version", "dropped"), [(1, False), (2, True)])
def test_groups_are_dropped_from_the_first_version_beyond_the_limit(build, finished, version, dropped):
    """With a limit of 1, groups of version 0 are trained on at version 1, and not at version 2."""
    run = build(Policy(every=2), staleness=1, stale="drop")
    run.generate(0)
    if finished:
        FakeDispatcher.last.wait_until(lambda: not FakeDispatcher.last.running)
    run.pool.version = version
    report = run.generate(1).report
    assert bool(report.stale) == (dropped and finished)
    assert (report.dropped_tokens.get("aborted", 0) > 0) == (dropped and not finished)


def test_complete_groups_that_grew_too_old_are_counted_and_logged(build, tmp_path):
    run = build(Policy(every=2), staleness=1, stale="drop")
    taken = len(run.generate(0).groups)
    FakeDispatcher.last.wait_until(lambda: not FakeDispatcher.last.running)
    complete = len(FakeDispatcher.submitted) - taken
    run.pool.version = 5
    learner = SimpleNamespace(model_outputs=lambda groups, oldest: [[ModelOutputs()] * len(g.rollouts) for g in groups])
    learner.update, learner.resource_use, learner.version = lambda samples: {}, list, 5
    log = RolloutLog(tmp_path / "log")
    loop = Loop(
        config=run.config,
        task_sampler=run.task_sampler,
        source=run.source,
        pool=run.pool,
        learner=learner,
        log=log,
        sync=SimpleNamespace(publish=dict),
        seed=0,
    )
    metrics = loop.step(1)
    log.wait()
    rows = [*read_rollouts(tmp_path / "log")]
    stale = [row for row in rows if row["shaped_reward"] is None]
    assert len(stale) == 2 * complete
    assert complete >= PROMPTS - 1
    assert all(row["verdict"] is not None and row["advantage"] is None for row in stale)
    assert len(rows) - len(stale) == metrics["rollouts"] > 0
    assert metrics["discarded/stale"] == pytest.approx(len(stale) / len(rows)), "an answer of this policy is one token"


def test_a_checkpoint_holds_what_was_drawn_and_not_trained_on(build, monkeypatch):
    whole = build(Policy(every=2), staleness=2)
    expected = [numbers(g) for g in steps_of(whole)]
    monkeypatch.setattr(FakeDispatcher, "submitted", [])
    monkeypatch.setattr(FakeDispatcher, "choose", staticmethod(max))
    first = build(Policy(every=2), staleness=2)
    before = [numbers(g) for g in steps_of(first, range(3))]
    for key in sorted(FakeDispatcher.last.running)[::2]:
        FakeDispatcher.last.answer(key)
    state, task_sampler = pickle.loads(pickle.dumps((first.source.state_dict(), first.task_sampler.state_dict())))
    answered = [g for g in state["groups"] if g["finished"] is not None]
    running = [g for g in state["groups"] if g["finished"] is None]
    assert answered
    assert running
    assert len(answered) + len(running) == len(FakeDispatcher.submitted) - sum(map(len, before))
    submitted_before = len(FakeDispatcher.submitted)

    second = build(Policy(every=2), staleness=2)
    second.pool.version = 3
    second.task_sampler.load_state_dict(task_sampler)
    second.source.load_state_dict(state)
    after = [numbers(g) for g in steps_of(second, range(3, STEPS))]
    assert before + after == expected
    again = [r.prompt.task.id for r in FakeDispatcher.submitted[submitted_before:]]
    assert not {g["task"].id for g in answered} & set(again)
    assert [g["task"].id for g in running] == again[: len(running)]


def test_it_closes(build):
    run = build(Policy(every=2), staleness=2)
    with contextlib.closing(run.source):
        run.generate(0)
    assert FakeDispatcher.last.running == {}


def test_tasks_without_completions_count_as_in_quarantine(build):
    run = build(Policy(every=2), staleness=1)
    dispatcher = FakeDispatcher.last

    def answer(key, plain=dispatcher.answer):
        if int(dispatcher.running[key].prompt.task.answer) % 3:
            return plain(key)
        del dispatcher.running[key]
        return dispatcher.on_completions(key, [])

    dispatcher.answer = answer
    steps = list(steps_of(run))
    dead = [r for r in FakeDispatcher.submitted if int(r.prompt.task.answer) % 3 == 0]
    assert sum(g.skipped.get("quarantine", 0) for g in steps) == len(dead) > 10
    assert all(len(groups_with_signal(g.groups, run.config)) < PROMPTS for g in steps)
