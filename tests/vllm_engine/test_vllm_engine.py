"""vLLM against our own engine: the same tokens, both log-probs, and everything that an engine promises."""

import threading

import numpy as np
import pytest
from vllm_helpers import build_prompt, embedded, flat, gaps, move, requests_for, tokens_of

from configs.rl import SamplingConfig
from rollouts.patches import Patches
from rollouts.request_queue import RequestQueue
from rollouts.resource_use import CacheUse
from rollouts.types import Request, Segment
from rollouts.weight_checksums import checksums

THRESHOLD = 1e-3
PLAIN = SamplingConfig(max_new_tokens=24)
FILTERED = SamplingConfig(max_new_tokens=24, temperature=0.7, top_k=40, top_p=0.8, min_p=0.02)
GREEDY = SamplingConfig(max_new_tokens=16, temperature=0)


@pytest.mark.parametrize("sampling", [PLAIN, FILTERED, GREEDY], ids=["plain", "filtered", "greedy"])
def test_the_same_answers_as_the_embedded_engine(engine, model, ids, prompts, sampling):
    """Before and after new weights; log-probs to 1e-3 in float32, and those of another model are far away."""
    requests = requests_for(prompts)
    found = engine.generate(requests, sampling)
    assert max(gaps(found, embedded(model, ids).generate(requests, sampling))) < THRESHOLD
    move(model)
    engine.load_weights(model.state_dict(), version=1)
    after = engine.generate(requests, sampling)
    assert max(gaps(after, embedded(model, ids).generate(requests, sampling))) < THRESHOLD
    assert tokens_of(after) != tokens_of(found)
    assert {s.version for c in flat(after) for s in c.segments} == {1}


def test_filters_tell_the_log_probs_apart(engine, prompts):
    for completion in flat(engine.generate(requests_for(prompts), FILTERED)):
        assert (completion.sampler_logprobs >= completion.policy_logprobs - 1e-6).all()
        assert completion.sampler_logprobs.sum() > completion.policy_logprobs.sum() + 1
    for completion in flat(engine.generate(requests_for(prompts), PLAIN)):
        assert np.array_equal(completion.sampler_logprobs, completion.policy_logprobs)


def test_the_image_is_seen(engine, model, ids, prompts):
    """With other pixels the log-probs of the same tokens are far away: the comparison above has power."""
    requests = requests_for(prompts[1:2])
    found = engine.generate(requests, GREEDY)
    object.__setattr__(prompts[1], "patches", Patches(-prompts[1].pixel_values))
    changed = embedded(model, ids).generate(requests, GREEDY)
    first = [
        abs(float(a.policy_logprobs[0] - b.policy_logprobs[0]))
        for a, b in zip(*map(flat, (found, changed)), strict=True)
    ]
    assert min(first) > 0.01


def test_a_sample_does_not_depend_on_its_company(engine, prompts):
    requests = requests_for(prompts)
    together = engine.generate(requests, PLAIN)
    assert engine.heartbeat > 0
    alone = [engine.generate([request], PLAIN)[0] for request in requests]
    assert max(gaps(together, alone)) < THRESHOLD
    fewer = engine.generate([Request(prompt=r.prompt, n=1, seed=r.seed) for r in requests], PLAIN)
    assert tokens_of(fewer) == [group[0].token_ids.tolist() for group in together]
    other = engine.generate(requests_for(prompts, seed=900), PLAIN)
    assert tokens_of(other) != tokens_of(together)


def test_stop_tokens_end_an_answer_and_barred_ones_never_come(engine, rng, model, ids):
    stop, barred = ids
    long = SamplingConfig(max_new_tokens=200, temperature=2.0)
    found = flat(engine.generate(requests_for([build_prompt(rng, model.config)], n=32), long))
    drawn = np.concatenate([c.token_ids for c in found])
    assert len(drawn) > 1000
    assert not np.isin(drawn, barred).any()
    reasons = {c.finish_reason for c in found}
    assert reasons == {"stop", "length"}
    for completion in found:
        ends = np.isin(completion.token_ids, stop)
        assert not ends[:-1].any()
        assert ends[-1] == (completion.finish_reason == "stop")
        assert (len(completion.token_ids) == 200) or completion.finish_reason == "stop"


def test_pieces_make_the_answer_in_one_piece(engine, prompts):
    """A budget of 7 tokens a call: aborted answers go on after their tokens with the numbers that come next."""
    whole = engine.generate(requests_for(prompts), FILTERED)
    pieces = engine.generate(requests_for(prompts, budget=7), FILTERED)
    assert {c.finish_reason for c in flat(pieces)} <= {"abort", "stop"}
    assert max(len(c.token_ids) for c in flat(pieces)) == 7
    for _ in range(3):
        requests = [
            Request(prompt=p, n=3, seed=100 + i, prefixes=tuple(group), budget=7)
            for i, (p, group) in enumerate(zip(prompts, pieces, strict=True))
        ]
        pieces = engine.generate(requests, FILTERED)
    assert max(gaps(whole, pieces)) < THRESHOLD
    assert [c.finish_reason for c in flat(whole)] == [c.finish_reason for c in flat(pieces)]
    longest = max(flat(pieces), key=lambda c: len(c.token_ids))
    assert longest.segments[:2] == (Segment(start=0, stop=7, version=0), Segment(start=7, stop=14, version=0))


def test_abort_and_go_on(engine, rng, model):
    """Aborted between two results: what was written stays, and going on gives the answer of an undisturbed call."""
    short, long = (build_prompt(rng, model.config, text=text, grids=((4, 4),)) for text in (8, 30))
    sampling = SamplingConfig(max_new_tokens=40)
    requests = [Request(prompt=short, n=1, seed=1, budget=5), Request(prompt=long, n=4, seed=2)]
    whole = engine.generate(requests[1:], sampling)[0]
    stream = engine.stream(requests, sampling)
    index, _ = next(stream)
    assert index == 0
    engine.abort()
    (index, cut), *rest = stream
    assert (index, rest) == (1, [])
    assert "abort" in {c.finish_reason for c in cut}
    lengths = {len(c.token_ids) for c in cut if c.finish_reason == "abort"}
    assert lengths == {5}, "one token a step, beside the other request"
    again = engine.generate([Request(prompt=long, n=4, seed=2, prefixes=tuple(cut))], sampling)
    assert max(gaps(again, [whole])) < THRESHOLD


def test_abort_from_another_thread(engine, prompts):
    endless = SamplingConfig(max_new_tokens=900, temperature=0)
    timer = threading.Timer(0.3, engine.abort)
    timer.start()
    found = flat(engine.generate(requests_for(prompts, n=8), endless))
    timer.join()
    assert "abort" in {c.finish_reason for c in found}
    assert len(found) == 24
    assert tokens_of(engine.generate(requests_for(prompts), PLAIN)), "the engine goes on"


def test_requests_join_while_it_works_and_are_called_off(engine, prompts):
    """From an open inbox: those that come later give the samples of one call; one that is called off ends early."""
    requests = requests_for(prompts)
    expected = engine.generate(requests, PLAIN)
    inbox, left, found = RequestQueue(), [*requests[1:], requests[0]], {}
    inbox.put(requests[:1])
    for number, completions in engine.stream(inbox, PLAIN):
        found[number] = completions
        if len(left) > 1:
            inbox.put([left.pop(0)])
        elif left:
            inbox.put([left.pop(0)])
            inbox.cancel([len(requests)])
            inbox.close()
    assert sorted(found) == list(range(len(requests) + 1))
    (called_off,) = [found.pop(len(requests))]
    assert {c.finish_reason for c in called_off} == {"abort"}
    assert max(gaps([found[i] for i in range(len(requests))], expected)) < THRESHOLD
    assert not engine.engine._running


def test_a_caller_that_stops_asking_leaves_nothing_behind(engine, prompts):
    stream = engine.stream([Request(prompt=prompts[0], n=1, seed=1, budget=2), *requests_for(prompts)], PLAIN)
    next(stream)
    stream.close()
    assert not engine.engine._running
    assert engine.engine._vllm.get_num_unfinished_requests() == 0


def test_new_weights_in_flight(engine, model, prompts):
    """Running samples go on, and what they write from then on is of the new version."""
    requests = [Request(prompt=prompts[1], n=1, seed=1, budget=6), Request(prompt=prompts[2], n=4, seed=2)]
    stream = engine.stream(requests, PLAIN)
    next(stream)
    engine.load_weights(move(model).state_dict(), version=5)
    (_, found), *_ = stream
    went_on = [c for c in found if len(c.token_ids) > 6]
    assert went_on
    for completion in went_on:
        length = len(completion.token_ids)
        assert completion.segments == (Segment(start=0, stop=6, version=0), Segment(start=6, stop=length, version=5))
    assert engine.version == 5
    later = engine.generate(requests[1:], PLAIN)[0]
    assert [c.segments[0].version for c in later] == [5] * 4


def test_a_loop_ends_an_answer(engine, model, prompts):
    model.lm_head.weight.data[9] *= 50  # nearly every token is 9, or none is
    engine.load_weights(model.state_dict(), version=1)
    limits = SamplingConfig(max_new_tokens=200, temperature=0, repeat_window=32)
    found = flat(engine.generate(requests_for(prompts), limits))
    assert "repeat" in {c.finish_reason for c in found}
    for completion in found:
        if completion.finish_reason == "repeat":
            last = completion.token_ids[-32:]
            assert len(completion.token_ids) < 200
            assert any((last[p:] == last[:-p]).all() for p in range(1, 17))
    assert not engine.engine._running


def test_weights_that_do_not_fit_change_nothing(engine, model, prompts):
    before = engine.generate(requests_for(prompts), PLAIN)
    weights = move(model).state_dict()
    with pytest.raises(ValueError, match=r"weights do not fit: missing \['lm_head.weight'\]"):
        engine.load_weights({k: v for k, v in weights.items() if k != "lm_head.weight"}, version=9)
    with pytest.raises(ValueError, match=r"lm_head.weight: shape \(3, 3\), the engine has"):
        engine.load_weights(weights | {"lm_head.weight": np.zeros((3, 3), dtype=np.float32)}, version=9)
    assert engine.version == 0
    assert tokens_of(engine.generate(requests_for(prompts), PLAIN)) == tokens_of(before)


def test_it_holds_what_it_was_given(engine, model):
    weights = {name: tensor.numpy() for name, tensor in move(model).state_dict().items()}
    engine.load_weights(weights, version=2)
    assert engine.weight_checksums() == checksums(weights)


def test_a_prompt_that_does_not_fit_says_so(engine, rng, model, prompts):
    with pytest.raises(ValueError, match="a prompt of 2000 tokens leaves no room for an answer in a context of 1024"):
        engine.generate(requests_for([build_prompt(rng, model.config, text=2000)]), PLAIN)
    assert not engine.engine._running
    assert len(flat(engine.generate(requests_for(prompts), PLAIN))) == 9


def test_a_full_context_ends_an_answer(engine, rng, model):
    greedy = SamplingConfig(max_new_tokens=400, temperature=0)
    (completion,) = flat(engine.generate(requests_for([build_prompt(rng, model.config, text=1000)], n=1), greedy))
    assert completion.finish_reason in ("length", "stop")
    assert len(completion.token_ids) <= 24


def test_cache_use_is_vllms_own_count(engine, prompts, monkeypatch):
    """Blocks in use at the fullest step, and prompt tokens less those that vLLM's prefix cache had."""
    vllm, cached = engine.engine._vllm, 0
    own_step = vllm.step

    def step():
        outputs = own_step()
        for output in outputs:
            output.num_cached_tokens = output.num_cached_tokens + cached
        return outputs

    monkeypatch.setattr(vllm, "step", step)
    engine.take_use()
    needed = 3 * sum(len(prompt.input_ids) for prompt in prompts)
    for cached in (0, 10):  # what the prefix cache, which is off on a CPU, would have had
        engine.generate(requests_for(prompts), SamplingConfig(max_new_tokens=4))
        use = engine.take_use().cache
        size, blocks = vllm.vllm_config.cache_config.block_size, vllm.vllm_config.cache_config.num_gpu_blocks
        most, least = (sum(3 * -(-(len(p.input_ids) + more) // size) for p in prompts) for more in (4, 1))
        assert least / (blocks - 1) - 1e-9 <= use.full <= most / (blocks - 1) + 1e-9
        assert (use.prompt_tokens, use.computed_tokens) == (needed, needed - 9 * cached)
    assert engine.take_use().cache == CacheUse()
