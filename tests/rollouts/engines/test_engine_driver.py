"""The driver with an engine that counts: streams side by side, cancelling, aborting, the heartbeat and checksums."""

import threading

import numpy as np
import pytest
import torch
from engine_helpers import build_prompt, requests_for, tokens_of

from configs.rl import SamplingConfig
from rollouts.engines.driver import EngineDriver
from rollouts.engines.protocol import Engine
from rollouts.request_queue import RequestQueue
from rollouts.types import Completion, Request, Segment
from rollouts.weight_checksums import checksums
from rollouts.weight_stream import fill_buckets, stream_of

SAMPLING = SamplingConfig(max_new_tokens=100)


class CountingEngine(Engine):
    """Sample tokens are 0, 1, 2, ...; the seed of a request says how many. It implements the seven members alone."""

    def __init__(self):
        self._version, self.running = 0, {}

    @property
    def version(self):
        return self._version

    def add(self, index, request, sampling):
        if request.seed > sampling.max_new_tokens:
            raise ValueError(f"{request.seed} tokens are too many")
        self.running[index] = [0, request]

    def step(self):
        for state in self.running.values():
            state[0] += 1
        return self._end([i for i, (count, request) in self.running.items() if count == request.seed], "stop")

    def cancel(self, indices):
        return self._end([i for i in indices if i in self.running], "abort")

    def start_load(self, shapes):
        pass

    def load_weights(self, weights):
        pass

    def finish_load(self, version):
        self._version = version

    def _end(self, indices, reason):
        return [(i, [self._completion(*self.running.pop(i), reason)]) for i in indices]

    def _completion(self, count, request, reason):
        zeros = np.zeros(count, np.float32)
        segments = (Segment(start=0, stop=count, version=self._version),)
        return Completion(
            token_ids=np.arange(count),
            policy_logprobs=zeros,
            sampler_logprobs=zeros,
            finish_reason=reason,
            segments=segments if count else (),
        )


@pytest.fixture
def driver():
    return EngineDriver(CountingEngine())


@pytest.fixture
def request_of(rng, tiny_model):
    prompt = build_prompt(rng, tiny_model.config, text=4)
    return lambda tokens: Request(prompt=prompt, n=1, seed=tokens)


def lengths(groups):
    return {index: len(completions[0].token_ids) for index, completions in groups}


def test_results_come_as_they_finish_and_generate_puts_them_in_order(driver, request_of):
    requests = [request_of(n) for n in (5, 1, 3)]
    assert [index for index, _ in driver.stream(requests, SAMPLING)] == [1, 2, 0]
    assert [len(c.token_ids) for (c,) in driver.generate(requests, SAMPLING)] == [5, 1, 3]


def test_streams_side_by_side_get_their_own_results(driver, request_of):
    """A step serves both; what the other stream has finished waits for it, under the number it has there."""
    slow = driver.stream([request_of(2), request_of(9)], SAMPLING)
    assert next(slow)[0] == 0
    assert lengths(driver.stream([request_of(30), request_of(4)], SAMPLING)) == {0: 30, 1: 4}
    steps = driver.heartbeat
    assert lengths(slow) == {1: 9}
    assert driver.heartbeat == steps, "it had finished beside the other stream"
    assert not driver._finished


def test_a_cancelled_request_comes_back_at_once(driver, request_of):
    queue = RequestQueue()
    queue.put([request_of(50), request_of(2), request_of(3)])
    stream = driver.stream(queue, SAMPLING)
    assert next(stream)[0] == 1
    queue.cancel([0, 77])
    queue.close()
    found = dict(stream)
    assert {i: c[0].finish_reason for i, c in found.items()} == {0: "abort", 2: "stop"}
    assert len(found[0][0].token_ids) == 2


def test_abort_ends_every_stream_and_no_later_one(driver, request_of):
    one, other = (driver.stream([request_of(1), request_of(60)], SAMPLING) for _ in range(2))
    next(one), next(other)
    driver.abort()
    assert [[c[0].finish_reason for _, c in stream] for stream in (one, other)] == [["abort"]] * 2
    assert lengths(driver.stream([request_of(7)], SAMPLING)) == {0: 7}


def test_a_stream_that_is_dropped_or_refused_leaves_nothing_behind(driver, request_of):
    stream = driver.stream([request_of(1), request_of(50)], SAMPLING)
    next(stream)
    stream.close()
    with pytest.raises(ValueError, match="500 tokens are too many"):
        driver.generate([request_of(3), request_of(500)], SAMPLING)
    assert not driver.engine.running
    assert not driver._finished
    assert not driver._expected


def test_the_heartbeat_counts_steps_and_what_the_engine_counts_within_them(driver, request_of, engine, prompts):
    driver.generate([request_of(6)], SAMPLING)
    assert driver.heartbeat == 6
    driver.load_weights({}, version=1)
    assert driver.heartbeat == 7
    steps = []
    stream = engine.stream(requests_for(prompts), SamplingConfig(max_new_tokens=12))
    for _ in stream:
        steps.append(engine.heartbeat)
    layers = len(engine.engine.model.model.language_model.layers)
    assert engine.heartbeat > 11 * layers, "every layer of every decoding step counts"


def test_checksums_of_an_engine_that_cannot_read_its_weights_back(driver):
    weights = {"a": torch.arange(6.0), "b": torch.zeros(2, 2)}
    assert driver.weight_checksums() == {}
    driver.load_weights(weights, version=3)
    assert driver.version == 3
    assert driver.weight_checksums() == checksums(weights)


def test_checksums_of_the_embedded_engine_are_of_what_it_really_holds(engine):
    weights = {name: tensor.clone() for name, tensor in engine.engine.model.state_dict().items()}
    engine.load_weights(weights, version=1)
    assert engine.weight_checksums() == checksums(weights)
    with torch.no_grad():
        engine.engine.model.lm_head.weight[3, 3] += 1
    different = {n for n, value in checksums(weights).items() if engine.weight_checksums()[n] != value}
    assert different == {"lm_head.weight"}


def test_no_token_comes_from_half_of_a_version(engine, prompts):
    """While a load is under way a stream waits; a load that broke off starts again from its beginning."""
    weights = {name: tensor * 1.5 for name, tensor in engine.engine.model.state_dict().items()}
    stream = stream_of(weights)
    first, *rest = fill_buckets(weights.items(), limit=1)
    engine.start_load(stream.shapes)
    engine.load_bucket(first)
    found = []
    thread = threading.Thread(target=lambda: found.extend(engine.generate(requests_for(prompts), SAMPLING)))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive()
    assert not found
    engine.start_load(stream.shapes)
    for bucket in (first, *rest):
        assert engine.load_bucket(bucket) == {sent.name: sent.checksum for sent in bucket.tensors}
    engine.finish_load(4)
    thread.join()
    assert {s.version for group in found for c in group for s in c.segments} == {4}
    with pytest.raises(ValueError, match="do not fit"):
        engine.start_load({})
    assert engine.generate(requests_for(prompts[:1]), SAMPLING), "nothing has begun"


def test_other_sampling_settings_have_a_batch_of_their_own(engine, prompts):
    """Between two results of a stream, a call with other settings gives the bits that it gives alone."""
    requests = requests_for(prompts)
    other = SamplingConfig(temperature=0, max_new_tokens=9)
    alone = engine.generate(requests, other)
    whole = dict(engine.stream(requests_for(prompts, seed=7), SAMPLING))
    stream = engine.stream(requests_for(prompts, seed=7), SAMPLING)
    index, first = next(stream)
    beside = engine.generate(requests, other)
    for a, b in zip(alone, beside, strict=True):
        for one, two in zip(a, b, strict=True):
            assert one.policy_logprobs.tobytes() == two.policy_logprobs.tobytes()
    found = {index: first, **dict(stream)}
    assert tokens_of(found[i] for i in sorted(found)) == tokens_of(whole[i] for i in sorted(whole))
    assert not engine.engine._batches
