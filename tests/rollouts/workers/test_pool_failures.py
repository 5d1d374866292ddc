"""Workers that are killed, hang, raise or cannot start: real processes, the same answers, and evidence."""

import json
import re
from collections import Counter

import pytest
from engine_helpers import requests_for, tokens_of

from configs.rl import SamplingConfig
from kimi_vl import load_model
from rollouts.workers.actor import EngineSpec, WorkerError
from rollouts.workers.pool import RolloutPool
from rollouts.workers.quarantine import Failure, Quarantine
from rollouts.workers.worker_group import StaleWorker

# A fresh worker imports torch and Ray: seconds, but minutes on a busy machine.
pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("local_ray")]
SAMPLED = SamplingConfig(temperature=1.0, max_new_tokens=6)


@pytest.fixture(scope="module")
def one_pool(hostile_spec):
    """One worker for all tests, since starting one takes seconds; its engine does what the files in `orders` say."""
    pool = RolloutPool(hostile_spec, workers=1, deadline=4.0)
    yield pool
    pool.close()


@pytest.fixture
def made(tmp_path, one_pool, orders, monkeypatch):
    """(the pool without a history, what it says)."""
    said = []
    monkeypatch.setattr(one_pool, "quarantine", Quarantine(tmp_path / "run" / "quarantine.json"))
    monkeypatch.setattr(one_pool, "failures", Counter())
    monkeypatch.setattr(one_pool, "_folder", tmp_path / "run" / "failures")
    monkeypatch.setattr(one_pool, "_say", said.append)
    monkeypatch.setattr(one_pool, "version", 0)
    yield one_pool, said
    for order in orders.iterdir():
        order.unlink()


@pytest.fixture(scope="module")
def weights(tiny_folder):
    """Not those of the checkpoint, so that a fresh worker without them would answer otherwise."""
    state = load_model(tiny_folder).state_dict()
    return {name: (tensor * 1.5).numpy().copy() for name, tensor in state.items()}


@pytest.fixture
def undisturbed(tiny_folder, tiny_ids, weights, prompts):
    spec = EngineSpec(
        model_path=str(tiny_folder), dtype="float32", stop_ids=tuple(tiny_ids[0]), barred_ids=tuple(tiny_ids[1])
    )
    engine = spec.build()
    engine.load_weights(weights, version=3)
    return engine.generate(requests_for(prompts), SAMPLED)


def same(a, b):
    """Tokens, log-probs to the last bit, reasons and versions."""
    assert tokens_of(a) == tokens_of(b)
    for one, other in zip([c for g in a for c in g], [c for g in b for c in g], strict=True):
        assert one.policy_logprobs.tobytes() == other.policy_logprobs.tobytes()
        assert (one.finish_reason, one.segments) == (other.finish_reason, other.segments)


@pytest.mark.chaos
def test_a_worker_that_dies_and_then_raises_gives_the_same_answers(made, orders, weights, prompts, undisturbed):
    pool, said = made
    pool.publish(weights, version=3)
    (orders / "once-kill-t5").touch()
    (orders / "once-raise-t60").touch()
    same(pool.generate(requests_for(prompts), SAMPLED), undisturbed)
    assert list(orders.iterdir()) == []
    assert pool.failures == {"death": 1, "exception": 1}
    assert len(pool.quarantine) == 0
    assert re.match(r"worker 0: death: process \d+: its worker process has died\. .*SYSTEM_ERROR", said[0])
    assert said[1].startswith("worker 0: exception: MemoryError: no room for this image (all of it in ")
    assert said[1].endswith("; a fresh one takes its place (so far: 1 deaths, 1 exceptions)")


@pytest.mark.chaos
def test_a_task_that_no_worker_survives(made, orders, tmp_path, weights, prompts, undisturbed):
    """Found among others, left out with its evidence; the rest is answered, now and by a pool that knows of it."""
    pool, said = made
    pool.publish(weights, version=3)
    (orders / "kill-t9").touch()
    requests = requests_for(prompts)[:2]
    answers = pool.generate(requests, SAMPLED)
    assert answers[1] == []
    [row] = json.loads((tmp_path / "run" / "quarantine.json").read_text())
    assert (row["task"], row["kind"], row["source"], row["version"]) == ("t9", "death", "made", 3)
    assert row["failures"] == pool.failures["death"] == 5, "three with both, two alone"
    assert any("task t9 goes to quarantine" in line for line in said)
    wanted = {"workers/deaths": 5.0, "workers/exceptions": 0.0, "workers/hangs": 0.0, "workers/quarantined": 1.0}
    assert pool.metrics().items() >= wanted.items()
    assert Quarantine(tmp_path / "run" / "quarantine.json").entries == pool.quarantine.entries
    again = pool.generate(requests, SAMPLED)
    assert again[1] == []
    same(again[:1], answers[:1])
    assert tokens_of(answers[:1]) == tokens_of(undisturbed[:1])
    assert pool.failures["death"] == 5, "it was not asked again"


def test_a_hang_is_named_with_its_stacks(made, orders, tmp_path, weights, prompts, undisturbed):
    pool, said = made
    pool.publish(weights, version=3)
    (orders / "once-hang-t9").touch()
    same(pool.generate(requests_for(prompts), SAMPLED), undisturbed)
    assert pool.failures == {"hang": 1}
    assert "worker 0: hang: worker 0 (process " in said[0]
    assert said[0].endswith("; a fresh one takes its place (so far: 1 hangs)")
    assert "has made no progress for 4 s" in said[0]
    assert "4 requests: t5, t9, t60, t14" in said[0]
    [file] = (tmp_path / "run" / "failures").iterdir()
    assert "a_named_place" in file.read_text()


def test_a_frozen_process_is_a_hang_too(made, orders, tmp_path, weights, prompts, undisturbed):
    """It cannot answer with its stacks; the state of the process says what it is."""
    pool, _ = made
    pool.publish(weights, version=3)
    (orders / "once-freeze-t9").touch()
    same(pool.generate(requests_for(prompts), SAMPLED), undisturbed)
    [file] = (tmp_path / "run" / "failures").iterdir()
    text = file.read_text()
    assert "process state: T (stopped)" in text
    assert "stacks" in text


@pytest.mark.parametrize(("deaths", "survives"), [(2, True), (4, False)])
def test_workers_that_die_of_new_weights_are_replaced_a_few_times(made, orders, weights, deaths, survives):
    """A death is no refusal: the fresh worker gets the weights, and the next one, until it is clear that none lives."""
    pool, said = made
    for number in range(deaths):
        (orders / f"die-of-weights-{number}").touch()
    if survives:
        pool.publish(weights, version=4)
        assert pool.version == 4
    else:
        with pytest.raises(WorkerError, match="published version 4, and worker 0 died of it 4 times in a row"):
            pool.publish(weights, version=4)
        assert pool.version == 0
    assert sum("a fresh one takes its place" in line for line in said) == deaths


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("stale", "worker 0 serves version \\d"),
        ("unloaded", r"other values of lm_head\.weight, .* and \d+ more$"),
        ("unsent", r"worker 0 holds other values of lm_head\.weight$"),
        ("swapped", r"other values of .*layers\.0\.input_layernorm\.weight, .*layers\.1\.input_layernorm\.weight$"),
    ],
)
def test_wrong_weights_are_named(made, orders, weights, fault, told):
    pool, _ = made
    weights = {name: value * (1 + len(fault) / 10) for name, value in weights.items()}  # such as no test has sent
    (orders / fault).touch()
    with pytest.raises(StaleWorker, match=f"published version 4 twice, but .*{told}"):
        pool.publish(weights, version=4)
    assert pool.version == 0
    (orders / fault).unlink()
    pool.publish(weights, version=4)
    assert pool.version == 4


def test_when_every_task_fails_no_task_is_blamed(made, prompts, monkeypatch):
    pool, _ = made
    failure = Failure("exception", "TypeError: our own mistake\nTraceback ...")
    monkeypatch.setattr(pool, "_run", lambda shares, sampling, tries=3: dict.fromkeys(shares, failure))
    with pytest.raises(WorkerError, match="tasks are not at fault: 2 of 4 fail alone; the last: TypeError: our own"):
        pool.generate(requests_for(prompts), SAMPLED)
    assert len(pool.quarantine) < len(prompts)


def test_what_fails_only_together_is_asked_in_parts(made, prompts, monkeypatch):
    pool, _ = made
    asked = []

    def run(shares, sampling, tries=3):
        [(slot, share)] = shares.items()
        asked.append(len(share))
        return {slot: Failure("death", "killed") if len(share) > 3 else [[r.seed] for r in share]}

    monkeypatch.setattr(pool, "_run", run)
    requests = requests_for(prompts)
    assert pool.generate(requests, SAMPLED) == [[r.seed] for r in requests]
    assert asked == [4, 2, 2, 1, 1, 1, 1]
    assert len(pool.quarantine) == 0


def test_a_worker_that_cannot_start_says_why(tiny_ids, tmp_path):
    spec = EngineSpec(model_path=str(tmp_path / "nothing"), dtype="float32", stop_ids=(1,), barred_ids=())
    pool = RolloutPool(spec, workers=1)
    with pytest.raises(WorkerError, match=r"^worker 0 cannot start: OSError: .*nothing") as caught:
        pool.publish({}, version=1)
    pool.close()
    assert not re.search(r"\n|File \"|\^\^|\x1b", str(caught.value)), "a traceback is not what a user reads"


def test_a_worker_that_finds_no_room_says_what_is_free(tiny_folder, monkeypatch):
    monkeypatch.setattr("rollouts.workers.worker_group.START_SECONDS", 2.0)
    monkeypatch.setattr("rollouts.workers.worker_group._gpu_share", lambda *_: 7.0)
    spec = EngineSpec(model_path=str(tiny_folder), dtype="float32", stop_ids=(1,), barred_ids=())
    pool = RolloutPool(spec, workers=1)
    with pytest.raises(WorkerError, match=r"worker 0 has not started within 2 s\. It needs 1 CPU and 7 GPU; free in"):
        pool.publish({}, version=1)
    pool.close()
