"""Feeding real workers: answers as they complete, weights on the way, and workers that die, raise or hang."""

import threading
import time
from collections import Counter

import pytest
import ray
from engine_helpers import requests_for, tokens_of

from configs.rl import SamplingConfig
from kimi_vl import load_model
from rollouts.workers.dispatcher import RequestDispatcher
from rollouts.workers.pool import RolloutPool
from rollouts.workers.quarantine import Quarantine

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]
SAMPLED = SamplingConfig(temperature=1.0, max_new_tokens=12)


@pytest.fixture(scope="module")
def two_workers(hostile_spec):
    pool = RolloutPool(hostile_spec, workers=2, deadline=15.0)
    yield pool
    pool.close()


@pytest.fixture
def pool(two_workers, orders, tmp_path, monkeypatch):
    monkeypatch.setattr(two_workers, "quarantine", Quarantine(tmp_path / "quarantine.json"))
    monkeypatch.setattr(two_workers, "failures", Counter())
    yield two_workers
    for order in orders.iterdir():
        order.unlink()


@pytest.fixture
def dispatch(pool):
    """A dispatcher, and what it passed on: key -> completions; each key once."""
    made = []

    def begin(sampling=SAMPLED, **options):
        found = {}

        def take_in(key, completions):
            assert key not in found, "answered twice"
            assert threading.current_thread().name == "dispatcher" or not completions
            found[key] = completions

        made.append(RequestDispatcher(pool, sampling, on_completions=take_in, **options))
        return made[-1], found

    yield begin
    for one in made:
        one.close()


@pytest.fixture
def expected(pool, prompts):
    return pool.generate(requests_for(prompts), SAMPLED)


def test_answers_of_workers_that_fail(pool, dispatch, orders, prompts, expected):
    """After a death and an exception each request is answered once, as it should be."""
    dispatcher, found = dispatch()
    (orders / "once-kill-t5").touch()
    (orders / "once-raise-t60").touch()
    dispatcher.submit(dict(enumerate(requests_for(prompts))))
    dispatcher.wait_until(lambda: len(found) == len(prompts))
    assert tokens_of([found[i] for i in range(len(prompts))]) == tokens_of(expected)
    assert pool.failures == {"death": 1, "exception": 1}
    assert len(pool.quarantine) == 0


def same(found, expected):
    """Log-probs to the last bit."""
    for key, group in enumerate(expected):
        assert [c.policy_logprobs.tobytes() for c in found[key]] == [c.policy_logprobs.tobytes() for c in group]


def test_batches_are_those_of_one_call_to_the_last_bit(pool, dispatch, orders, prompts):
    """Also where a worker dies after the first of its completions has come, and after an evaluation replaced one."""
    requests = requests_for([*prompts, *prompts, *prompts], n=3)
    expected = pool.generate(requests, SAMPLED)
    arrived = []
    dispatcher, found = dispatch(room=None, on_arrival=lambda key, completions: arrived.append(key))
    for step in range(3):
        found.clear()
        arrived.clear()
        with pool.lock:
            dispatcher.submit(dict(enumerate(requests[:7])))
            dispatcher.submit(dict(enumerate(requests[7:], 7)))  # another call, the same batch
            assert dispatcher.depths() == (len(requests), 0), "nothing starts before somebody waits"
        early = kill_early(dispatcher) if step == 1 else []
        dispatcher.wait_until(lambda: len(found) == len(requests))
        same(found, expected)
        assert len(early) == (step == 1)
        assert len(arrived) == len(set(arrived)) >= 1, "none is told twice, also where its batch is generated again"
        assert step == 1 or len(arrived) == len(requests) - 2, "all but the last of each of two batches"
        if step == 1:
            (orders / "once-kill-t60").touch()
            same(pool.generate(requests, SAMPLED), expected)
    assert pool.failures == {"death": 2}


def kill_early(dispatcher):
    """Kill worker 0 when its first result has come and others have not; the keys that had come."""
    receive, early = dispatcher._receive, []

    def receiving(stream):
        failure = receive(stream)
        if stream.slot == 0 and stream.finished and not early:
            assert len(stream.finished) < len(stream.requests)
            early.append(list(stream.finished))
            ray.kill(stream.actor)
        return failure

    dispatcher._receive = receiving
    return early


@pytest.mark.slow
def test_a_task_that_no_worker_survives_in_a_batch(pool, dispatch, orders, prompts):
    """The rest of its batch has the bits that a run gives that knows of it from the start."""
    requests = requests_for(prompts, n=2)
    dispatcher, found = dispatch(room=None)
    (orders / "kill-t9").touch()
    dispatcher.submit(dict(enumerate(requests)))
    dispatcher.wait_until(lambda: len(found) == len(requests))
    assert list(pool.quarantine.entries) == ["t9"], pool.quarantine.lines()
    assert found[1] == []
    same(found, pool.generate(requests, SAMPLED))
    found.clear()
    dispatcher.submit(dict(enumerate(requests)))
    dispatcher.wait_until(lambda: len(found) == len(requests))
    same(found, pool.generate(requests, SAMPLED))


@pytest.mark.slow
def test_a_hang_and_a_task_that_no_worker_survives(pool, dispatch, orders, prompts, expected):
    """The task alone goes to quarantine, though others were there each time that it killed a worker."""
    dispatcher, found = dispatch()
    (orders / "once-hang-t14").touch()
    (orders / "kill-t9").touch()
    requests = dict(enumerate(requests_for(prompts)))
    dispatcher.submit(requests)
    dispatcher.wait_until(lambda: len(found) == len(prompts))
    assert list(pool.quarantine.entries) == ["t9"], pool.quarantine.lines()
    assert found.pop(1) == []
    for i, answers in found.items():
        assert tokens_of([answers]) == tokens_of([expected[i]])
    assert pool.failures["hang"] == 1
    dispatcher.submit({20: requests[1]})
    assert found[20] == [], "a task in quarantine is not asked"
    assert dispatcher.depths() == (0, 0)


def heartbeats(pool):
    return ray.get([actor.heartbeat.remote() for actor in pool.worker_group.actors.values()])


def test_weights_come_while_the_workers_write(pool, dispatch, tiny_folder, prompts):
    """Nothing is interrupted: what is written before and after are two segments, and calls beside the stream work.

    The workers of this test serve another dispatcher before and after.
    """
    weights = {name: (t * 1.5).numpy().copy() for name, t in load_model(tiny_folder).state_dict().items()}
    long = SamplingConfig(temperature=1.0, max_new_tokens=400)
    dispatcher, found = dispatch(long, room=2)
    pool.worker_group.start([0, 1])
    before = heartbeats(pool)
    dispatcher.submit(dict(enumerate(requests_for(prompts * 2))))
    assert dispatcher.depths() == (6, 2), "a worker with room for two samples holds one group of two"
    while any(now == then for now, then in zip(heartbeats(pool), before, strict=True)):
        time.sleep(0.002)  # until both workers are in their first step, which new weights wait for
    pool.publish(weights, version=7)
    beside = pool.generate(requests_for(prompts[:2], n=1), SAMPLED)
    dispatcher.wait_until(lambda: len(found) == 8)
    assert {s.version for group in beside for c in group for s in c.segments} == {7}
    versions = [[s.version for s in c.segments] for group in found.values() for c in group]
    assert versions.count([7]) >= 8, "those that were begun afterwards"
    assert [0, 7] in versions, "those that were under way"
    pool.publish(weights, version=0)


def test_called_off(pool, dispatch, prompts):
    """Those that run come back with what they have, those that wait without anything, the others whole."""
    dispatcher, found = dispatch(room=2)
    requests = dict(enumerate(requests_for(prompts * 2)))
    with pool.lock:
        dispatcher.submit(requests)
        dispatcher.cancel([0, 6, 7])
        assert (found[6], found[7]) == ([], [])
    dispatcher.wait_until(lambda: len(found) == 8)
    assert {c.finish_reason for c in found[0]} <= {"abort", "stop", "length"}
    assert all(len(found[key]) == 2 for key in range(6))


def test_what_ends_the_dispatcher_ends_the_run(dispatch, prompts):
    def broken(key, completions):
        raise RuntimeError(f"no room for {key}")

    dispatcher, _ = dispatch()
    dispatcher._on_completions = broken
    dispatcher.submit(dict(enumerate(requests_for(prompts[:1]))))
    with pytest.raises(RuntimeError, match="no room for 0"):
        dispatcher.wait_until(lambda: False)
