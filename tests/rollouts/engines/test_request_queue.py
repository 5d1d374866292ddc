"""Requests that come while an engine works: they join its batch, change no other sample, and can be called off."""

import threading

import numpy as np
import pytest
from engine_helpers import engine_of, requests_for, tokens_of

from configs.rl import SamplingConfig
from rollouts.engines.continuous_batching import BatchLimits
from rollouts.request_queue import RequestQueue
from rollouts.resource_use import CacheUse, EngineUse

SAMPLED = SamplingConfig(temperature=0.9, max_new_tokens=24)


@pytest.fixture
def ending(tiny_model, tiny_ids):
    """Engines whose answers have long-tailed lengths."""
    stops = list(range(0, 256, 12))
    return lambda **options: engine_of(tiny_model, ([], [*tiny_ids[0], *tiny_ids[1]]), stop_ids=stops, **options)


def test_a_stream_takes_requests_while_it_works(ending, prompts):
    """One request at first, one more after each answer: the samples are those of one call, and so is their order."""
    requests = requests_for([*prompts, *prompts], n=3)
    expected = ending().generate(requests, SAMPLED)
    inbox, left, found = RequestQueue(), list(requests), {}
    inbox.put([left.pop(0), left.pop(0)])
    for number, completions in ending().stream(inbox, SAMPLED):
        found[number] = completions
        if left:
            inbox.put([left.pop(0)])
        else:
            inbox.close()
    assert tokens_of([found[i] for i in range(len(requests))]) == tokens_of(expected)
    for group, wanted in zip([found[i] for i in range(len(requests))], expected, strict=True):
        for one, other in zip(group, wanted, strict=True):
            assert np.abs(one.policy_logprobs - other.policy_logprobs).max() < 2e-5


def test_all_that_comes_at_once_is_one_call(ending, prompts):
    """To the last bit, also after the engine has been idle: nothing is left over from what came before."""
    requests = requests_for(prompts, n=2)
    expected = ending().generate(requests, SAMPLED)
    inbox = RequestQueue()
    stream = ending().stream(inbox, SAMPLED)
    for round_ in range(2):
        inbox.put(requests)
        found = dict(next(stream) for _ in requests)
        answers = [found[round_ * len(requests) + i] for i in range(len(requests))]
        for group, wanted in zip(answers, expected, strict=True):
            for one, other in zip(group, wanted, strict=True):
                assert one.policy_logprobs.tobytes() == other.policy_logprobs.tobytes()
                assert one.token_ids.tolist() == other.token_ids.tolist()


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_called_off(engine, prompts, tiny_model, tiny_ids, rows):
    """Running, half entered and waiting groups end with what they have; the others are what they would have been."""
    requests = requests_for(prompts, n=4)
    expected = engine.generate(requests, SAMPLED)
    for victim in range(len(requests)):
        limited = engine_of(tiny_model, tiny_ids, limits=BatchLimits(rows=rows))
        inbox = RequestQueue(requests)
        inbox.cancel([victim, 99])
        found = dict(limited.stream(inbox, SAMPLED))
        assert sorted(found) == list(range(len(requests)))
        ended = found.pop(victim)
        assert [c.finish_reason for c in ended] == ["abort"] * 4
        for one, whole in zip(ended, expected[victim], strict=True):
            assert one.token_ids.tolist() == whole.token_ids[: len(one.token_ids)].tolist()
        for i, group in found.items():
            assert tokens_of([group]) == tokens_of([expected[i]])


def test_called_off_in_the_middle(ending, prompts):
    """After the first answer every other group is called off: it ends at once, part of it written."""
    requests = requests_for([*prompts, *prompts], n=4)
    expected = ending().generate(requests, SAMPLED)
    inbox, found = RequestQueue(), {}
    inbox.put(requests)
    for number, completions in ending(limits=BatchLimits(rows=11)).stream(inbox, SAMPLED):
        if not found:
            inbox.cancel(set(range(len(requests))) - {number})
            inbox.close()
        found[number] = completions
    assert sorted(found) == list(range(len(requests)))
    aborted = [c for group in found.values() for c in group if c.finish_reason == "abort"]
    assert any(len(c.token_ids) for c in aborted)
    assert any(not len(c.token_ids) for c in aborted)
    for i, group in found.items():
        for one, whole in zip(group, expected[i], strict=True):
            assert one.token_ids.tolist() == whole.token_ids[: len(one.token_ids)].tolist()


def test_an_idle_stream_sleeps_until_something_comes(ending, prompts):
    inbox, found = RequestQueue(), []
    reader = threading.Thread(target=lambda: found.extend(ending().stream(inbox, SAMPLED)), daemon=True)
    reader.start()
    for request in requests_for(prompts[:2]):
        inbox.put([request])
    inbox.close()
    reader.join(timeout=60)
    assert not reader.is_alive()
    assert [number for number, _ in sorted(found, key=lambda item: item[0])] == [0, 1]


def test_padding_is_counted(engine, prompts):
    """Prompts are read together, each padded to the longest; each later token is one more place, without padding."""
    engine.generate(requests_for(prompts, n=1), SAMPLED)
    lengths = [len(p.input_ids) for p in prompts]
    padded = len(lengths) * max(lengths) - sum(lengths)
    later = len(lengths) * (SAMPLED.max_new_tokens - 1)
    assert padded > 0
    assert engine.take_padding_stats() == {"padded": padded, "computed": sum(lengths) + padded + later}


def test_use_is_counted_from_report_to_report(engine, prompts):
    """Three samples read each prompt once: of three times its tokens, two thirds come from the cache."""
    engine.generate(requests_for(prompts, n=3), SAMPLED)
    use, lengths = engine.take_use(), [len(p.input_ids) for p in prompts]
    assert use.busy > 0
    assert (use.cache.prompt_tokens, use.cache.computed_tokens) == (3 * sum(lengths), sum(lengths))
    assert 0 < use.cache.full < 1
    assert engine.take_use() == EngineUse(busy=0.0, cache=CacheUse())
