"""One verifier gives the same verdicts from threads, asyncio tasks and a Ray actor; signals stay untouched."""

import asyncio
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from rewards.sandbox.pool import WorkerPool
from rewards.types import Task
from rewards.verifiers.math import MathVerifier

MATRIX = "\\begin{pmatrix}2&1\\\\0&3\\end{pmatrix}"
IDENTITY = "\\begin{pmatrix}1&0\\\\0&1\\end{pmatrix}"  # only the worker process multiplies matrices
PAIRS = [
    ("\\boxed{0.5}", "1/2", "correct"), ("\\boxed{x^2+2x+1}", "(x+1)^2", "correct"),
    ("\\boxed{(1,2]}", "1<x\\le 2", "correct"),
    (f"\\boxed{{{IDENTITY}{MATRIX}}}", MATRIX, "correct"), ("\\boxed{9^{9^{9}}}", "5", "no_answer"),
    ("\\boxed{\\sqrt{3}}", "\\sqrt{2}", "wrong"), ("", "5", "no_answer"), ("\\boxed{5}", "{", "bad_reference"),
]  # fmt: skip
EXPECTED = [kind for _, _, kind in PAIRS]


def judge(verify, pair):
    return verify(pair[0], pair[1], task=Task(id="", source="", question="", answer=pair[1])).kind.value


@pytest.fixture
def verify():
    worker = WorkerPool(seconds=30.0)
    yield MathVerifier(worker)
    worker.close()


def test_threads(verify):
    before = signal.getsignal(signal.SIGALRM)
    with ThreadPoolExecutor(8) as pool:
        rounds = list(pool.map(lambda _: [judge(verify, pair) for pair in PAIRS], range(24)))
    assert rounds == [EXPECTED] * 24
    assert signal.getsignal(signal.SIGALRM) is before
    assert threading.active_count() < 20


def test_asyncio(verify):
    async def run():
        inside = [judge(verify, pair) for pair in PAIRS]
        beside = await asyncio.gather(*(asyncio.to_thread(judge, verify, pair) for pair in PAIRS))
        return inside, list(beside)

    assert asyncio.run(run()) == (EXPECTED, EXPECTED)


def test_a_ray_actor():
    import ray
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])

    @ray.remote(num_cpus=0, max_concurrency=4)
    class Judge:
        def __init__(self):
            self.worker = WorkerPool(seconds=30.0)

        def judge(self, pair):
            return judge(MathVerifier(self.worker), pair)

    mine = not ray.is_initialized()  # a test before this one may have left its cluster up
    if mine:
        ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        actor = Judge.remote()
        assert ray.get([actor.judge.remote(pair) for pair in PAIRS], timeout=120) == EXPECTED
    finally:
        if mine:
            ray.shutdown()


@pytest.mark.parametrize("response", [None, 42, True, 1.5, {"a": 1}, [1], b"5"])
def test_what_is_no_text_is_no_answer(verify, response):
    assert judge(verify, (response, "5")) == "no_answer"
