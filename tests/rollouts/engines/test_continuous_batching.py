"""Samples that come and go: refill, memory limits, streams, aborts, going on, new weights on the way, routes."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from engine_helpers import build_prompt, engine_of, requests_for, tokens_of
from hypothesis import given, settings
from hypothesis import strategies as st

from configs.rl import SamplingConfig
from rollouts.engines.continuous_batching import BatchLimits, RunningBatch
from rollouts.engines.decoder import LatentDecoder
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.types import Request

SAMPLED = SamplingConfig(temperature=0.9, max_new_tokens=40)


@pytest.fixture
def ending(tiny_model, tiny_ids):
    """Engines whose answers have long-tailed lengths: one token in twelve, or so, ends an answer."""
    stops = list(range(0, 256, 12))
    return lambda **options: engine_of(tiny_model, ([], [*tiny_ids[0], *tiny_ids[1]]), stop_ids=stops, **options)


def flat(results):
    return [completion for group in results for completion in group]


def assert_same(a, b, *, atol=2e-5):
    """The same samples: tokens, reasons, segments, and log-probs to rounding."""
    assert tokens_of(a) == tokens_of(b)
    for x, y in zip(flat(a), flat(b), strict=True):
        assert (x.finish_reason, x.segments) == (y.finish_reason, y.segments)
        assert np.abs(x.policy_logprobs - y.policy_logprobs).max(initial=0) < atol
        assert np.abs(x.sampler_logprobs - y.sampler_logprobs).max(initial=0) < atol


def count_steps(monkeypatch):
    """The number of rows that each decode step fed."""
    fed = []
    step = LatentDecoder.step

    def counted(self, token_ids, positions, plan):
        fed.append(len(token_ids))
        return step(self, token_ids, positions, plan)

    monkeypatch.setattr(LatentDecoder, "step", counted)
    return fed


@pytest.mark.parametrize("rows", [1, 3, 7, 16])
def test_rows_that_end_make_room_at_once(ending, prompts, rows, monkeypatch):
    """No step has more rows than allowed, and while requests wait no step has fewer."""
    requests = requests_for([*prompts, *prompts], n=[3, 1, 5, 2, 4, 1, 1, 3])
    plain = ending().generate(requests, SAMPLED)
    fed = count_steps(monkeypatch)
    assert_same(ending(limits=BatchLimits(rows=rows)).generate(requests, SAMPLED), plain)
    assert max(fed) <= rows
    tokens = sum(len(c.token_ids) for c in flat(plain))
    assert sum(fed) == tokens - 20, "each token but the 20 last ones is fed exactly once"
    if rows == 1:
        assert set(fed) == {1}
    longest = max(len(c.token_ids) for c in flat(plain))
    # A full row never idles for more than one first token's step, so the steps are near the work divided by the rows.
    assert len(fed) <= tokens / rows + longest + 20


@settings(max_examples=15)
@given(data=st.data())
def test_no_limit_changes_a_sample(tiny_folder, tiny_ids, data):
    """Any group sizes, prompt lengths, orders and limits: the same samples as one request at a time."""
    from kimi_vl import load_model

    model = _model_of(tiny_folder, load_model)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shapes = data.draw(
        st.lists(st.tuples(st.integers(1, 70), st.sampled_from([(), ((2, 2),), ((4, 6), (2, 4))])), max_size=5)
    )
    prompts = [build_prompt(rng, model.config, text=text, grids=grids) for text, grids in shapes]
    counts = data.draw(st.lists(st.integers(1, 5), min_size=len(prompts), max_size=len(prompts)))
    limits = BatchLimits(
        rows=data.draw(st.integers(1, 9)),
        tokens=data.draw(st.sampled_from([1, 100, 300, 1000])),
        prefill_tokens=data.draw(st.sampled_from([1, 64, 200, 8192])),
    )
    stops = list(range(0, 256, 12))
    sampling = replace(SAMPLED, max_new_tokens=data.draw(st.sampled_from([1, 2, 33, 50])))
    requests = requests_for(prompts, n=counts, seed=data.draw(st.integers(0, 2**63)))
    ids = ([], [*tiny_ids[0], *tiny_ids[1]])
    together = engine_of(model, ids, stop_ids=stops, limits=limits).generate(requests, sampling)
    alone = [engine_of(model, ids, stop_ids=stops).generate([request], sampling)[0] for request in requests]
    assert_same(together, alone)


_MODELS = {}


def _model_of(folder, load_model):
    """One copy for all examples: nothing here changes it."""
    if folder not in _MODELS:
        _MODELS[folder] = load_model(folder)
    return _MODELS[folder]


def test_memory_stays_within_its_limit(ending, prompts, monkeypatch):
    """The cache never holds more than the limit, rows are put back, and the samples stay the same."""
    requests = requests_for([prompts[0], prompts[3], prompts[1]], n=6)
    plain = ending().generate(requests, SAMPLED)
    used, put_back = [], []
    grow = RunningBatch._grow

    def watched(self):
        before = len(self._live)
        grow(self)
        put_back.append(before - len(self._live))
        used.append(self._used)
        assert len(set(self._read_groups)) == len(self._read_groups), "a prompt was read twice"

    monkeypatch.setattr(RunningBatch, "_grow", watched)
    limits = BatchLimits(tokens=320)
    assert_same(ending(limits=limits).generate(requests, SAMPLED), plain)
    assert max(used) <= 320
    assert sum(put_back) > 0, "nothing was ever put back: the test shows nothing"


def test_memory_for_less_than_one_sample_still_serves(ending, prompts):
    requests = requests_for(prompts, n=2)
    assert_same(ending(limits=BatchLimits(tokens=1)).generate(requests, SAMPLED), ending().generate(requests, SAMPLED))


def test_a_cut_in_rows_of_logits_changes_nothing(ending, prompts, monkeypatch):
    requests = requests_for(prompts, n=4)
    plain = ending().generate(requests, SAMPLED)
    monkeypatch.setattr("rollouts.engines.continuous_batching._LOGITS", 1200)  # two rows of this vocabulary
    assert_same(ending().generate(requests, SAMPLED), plain)


@pytest.mark.parametrize("limits", [{"rows": 0}, {"tokens": 0}, {"prefill_tokens": -1}])
def test_limits_below_one_are_refused(limits):
    with pytest.raises(ValueError, match="every limit must be 1 or more"):
        BatchLimits(**limits)


def test_prompts_are_read_once_and_together(ending, tiny_model, prompts):
    rows = []
    tiny_model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    ending(limits=BatchLimits(rows=2)).generate(requests_for(prompts, n=5), SAMPLED)
    assert rows == [2, 2], "as many prompts ahead as there are rows"


# Streams and aborts


def test_requests_are_yielded_as_they_finish(ending, prompts):
    requests = requests_for([*prompts, *prompts], n=2)
    engine = ending(limits=BatchLimits(rows=4))
    seen = list(engine.stream(requests, SAMPLED))
    assert sorted(index for index, _ in seen) == list(range(8))
    assert [index for index, _ in seen] != list(range(8)), "lengths differ, so does the order"
    assert_same([group for _, group in sorted(seen, key=lambda item: item[0])], engine.generate(requests, SAMPLED))


def test_results_come_before_the_last_sample_ends(ending, prompts, monkeypatch):
    fed = count_steps(monkeypatch)
    stream = ending(limits=BatchLimits(rows=2)).stream(requests_for(prompts, n=2), SAMPLED)
    next(stream)
    first = len(fed)
    list(stream)
    assert first < len(fed)


def test_abort_returns_what_there_is_and_the_rest_can_follow(ending, prompts):
    """Aborted in the middle, samples that ended stay, others keep a beginning; going on gives the whole answers."""
    requests = requests_for([*prompts, *prompts], n=3)
    whole = ending().generate(requests, SAMPLED)
    engine = ending(limits=BatchLimits(rows=6))
    stream = engine.stream(requests, SAMPLED)
    results = dict([next(stream)])
    engine.abort()
    results |= dict(stream)
    assert sorted(results) == list(range(8))
    cut = [results[i] for i in range(8)]
    reasons = [c.finish_reason for c in flat(cut)]
    lengths = [len(c.token_ids) for c in flat(cut) if c.finish_reason == "abort"]
    assert {"abort", "stop"} <= set(reasons)
    assert min(lengths) == 0, "some had not begun"
    assert max(lengths) > 1
    for short, full in zip(flat(cut), flat(whole), strict=True):
        assert short.token_ids.tolist() == full.token_ids[: len(short.token_ids)].tolist()
    again = [replace(r, prefixes=tuple(group)) for r, group in zip(requests, cut, strict=True)]
    finished = engine.generate(again, SAMPLED)
    assert tokens_of(finished) == tokens_of(whole)
    for a, b, before in zip(flat(finished), flat(whole), flat(cut), strict=True):
        assert a.finish_reason == b.finish_reason
        assert np.abs(a.policy_logprobs - b.policy_logprobs).max() < 2e-5
        assert (a is before) == (before.finish_reason != "abort"), "what had ended is not touched"
        kept = len(before.token_ids)
        assert (a.policy_logprobs[:kept] == before.policy_logprobs).all(), "old log-probs are kept, not computed again"
        assert [s.start for s in a.segments] == ([0, kept] if 0 < kept < len(a.token_ids) else [0])


def test_abort_from_another_thread(ending, prompts):
    engine = ending()
    timer = threading.Timer(0.05, engine.abort)
    timer.start()
    results = engine.generate(requests_for(prompts * 8, n=8), replace(SAMPLED, max_new_tokens=2000, top_k=1))
    timer.join()
    assert any(c.finish_reason == "abort" for c in flat(results))
    after = engine.generate(requests_for(prompts, n=1), SAMPLED)
    assert not any(c.finish_reason == "abort" for c in flat(after)), "an abort is over when its stream is"


@pytest.mark.parametrize("budget", [1, 2, 7, 33])
def test_a_budget_ends_each_sample_and_pieces_make_the_whole(ending, prompts, budget):
    """Partial rollouts: so many tokens a call; segment by segment the samples are those of one call."""
    requests = requests_for(prompts, n=3)
    whole = ending().generate(requests, SAMPLED)
    engine = ending(limits=BatchLimits(rows=5))
    pieces = [replace(r, budget=budget) for r in requests]
    calls = 0
    while True:
        results = engine.generate(pieces, SAMPLED)
        calls += 1
        for old, new in zip(pieces, results, strict=True):
            for i, completion in enumerate(new):
                before = len(old.prefixes[i].token_ids) if old.prefixes else 0
                assert len(completion.token_ids) <= before + budget
                assert completion.finish_reason != "abort" or len(completion.token_ids) == before + budget
        if all(c.finish_reason != "abort" for c in flat(results)):
            break
        pieces = [replace(r, prefixes=tuple(group)) for r, group in zip(pieces, results, strict=True)]
    longest = max(len(c.token_ids) for c in flat(whole))
    assert calls == -(-longest // budget)
    assert tokens_of(results) == tokens_of(whole)
    for a, b in zip(flat(results), flat(whole), strict=True):
        assert a.finish_reason == b.finish_reason
        assert np.abs(a.policy_logprobs - b.policy_logprobs).max() < 2e-5
        assert [s.start for s in a.segments] == list(range(0, len(a.token_ids), budget))


def test_an_answer_that_is_as_long_as_allowed_is_not_written_on(ending, prompts):
    [group] = ending().generate([Request(prompt=prompts[0], n=4, seed=1, budget=6)], SAMPLED)
    again = Request(prompt=prompts[0], n=4, seed=1, prefixes=tuple(group))
    [cut] = ending().generate([again], replace(SAMPLED, max_new_tokens=6))
    assert tokens_of([cut]) == tokens_of([group])
    assert {c.finish_reason for c in cut} <= {"length", "stop"}
    assert any(c.finish_reason == "length" for c in cut)


def test_requests_that_make_no_sense_are_refused(prompts, ending):
    [group] = ending().generate(requests_for(prompts[:1], n=2), SAMPLED)
    with pytest.raises(ValueError, match="2 prefixes, but n = 3"):
        Request(prompt=prompts[0], n=3, seed=0, prefixes=tuple(group))
    with pytest.raises(ValueError, match="n = 0"):
        Request(prompt=prompts[0], n=0, seed=0)
    with pytest.raises(ValueError, match="budget = 0"):
        Request(prompt=prompts[0], n=1, seed=0, budget=0)


# New weights on the way


def test_new_weights_between_tokens_begin_a_segment(engine, tiny_model, prompts):
    """What runs goes on over its old latents: tokens up to here are the old policy's, and each says whose it is."""
    requests = requests_for([prompts[0], prompts[1]], n=2)
    sampling = replace(SAMPLED, max_new_tokens=30)
    weights = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    old = engine.generate(requests, sampling)
    short = Request(prompt=prompts[3], n=1, seed=5, budget=10)
    stream = engine.stream([*requests, short], sampling)
    assert next(stream)[0] == 2
    changed = {name: value + 0.3 * torch.randn_like(value) for name, value in weights.items()}
    engine.load_weights(changed, version=4)
    results = [group for _, group in sorted(stream, key=lambda item: item[0])]
    for a, b in zip(flat(results), flat(old), strict=True):
        assert [(s.start, s.stop, s.version) for s in a.segments] == [(0, 10, 0), (10, 30, 4)]
        assert (a.token_ids[:10] == b.token_ids[:10]).all()
        assert (a.token_ids != b.token_ids).any()


def test_load_weights_from_another_thread_gets_its_turn(engine, tiny_model, prompts):
    weights = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    stream = engine.stream(requests_for(prompts, n=2), replace(SAMPLED, max_new_tokens=400))
    results = []
    worker = threading.Thread(target=lambda: results.extend(stream))
    worker.start()
    engine.load_weights(weights, version=3)
    assert worker.is_alive(), "the update waited for the whole generation"
    engine.abort()
    worker.join()
    assert len(results) == 4


# Routed experts


def test_routes_are_those_of_a_full_forward_pass(tiny_model, tiny_ids, prompts):
    engine = engine_of(tiny_model, tiny_ids, record_experts=True, limits=BatchLimits(rows=3))
    results = engine.generate(requests_for(prompts, n=2), SAMPLED)
    config = tiny_model.config.text_config
    layers = config.num_hidden_layers - config.first_k_dense_replace
    for prompt, group in zip(prompts, results, strict=True):
        for completion in group:
            routes = completion.routed_experts
            assert routes.shape == (len(completion.token_ids), layers, config.num_experts_per_tok)
            assert routes.dtype == np.uint8
            expected = _routes(tiny_model, prompt, completion.token_ids)
            assert (np.sort(routes, -1) == np.sort(expected, -1)).all()
    assert len({routes.tobytes() for group in results for routes in [group[0].routed_experts]}) > 1


def _routes(model, prompt, tokens):
    """[T, M, k] by one pass without a cache."""
    seen = []
    gates = [layer.mlp.gate for layer in model.model.language_model.layers if hasattr(layer.mlp, "gate")]
    hooks = [gate.register_forward_hook(lambda _m, _i, output: seen.append(output[2])) for gate in gates]
    images = {}
    if len(prompt.pixel_values):
        images = {
            "pixel_values": torch.from_numpy(prompt.pixel_values),
            "image_grid_hws": torch.from_numpy(prompt.image_grid_hws),
        }
    with torch.no_grad():
        model(input_ids=torch.from_numpy(np.concatenate([prompt.input_ids, tokens]))[None], use_cache=False, **images)
    for hook in hooks:
        hook.remove()
    return torch.stack(seen, 1)[len(prompt.input_ids) - 1 : -1].numpy()


def test_routes_of_pieces_are_those_of_the_whole(tiny_model, tiny_ids, prompts):
    engine = engine_of(tiny_model, tiny_ids, record_experts=True)
    requests = requests_for(prompts, n=2)
    whole = engine.generate(requests, SAMPLED)
    first = engine.generate([replace(r, budget=9) for r in requests], SAMPLED)
    again = [replace(r, prefixes=tuple(group)) for r, group in zip(requests, first, strict=True)]
    for a, b in zip(flat(engine.generate(again, SAMPLED)), flat(whole), strict=True):
        assert (np.sort(a.routed_experts, -1) == np.sort(b.routed_experts, -1)).all()
    plain = engine_of(tiny_model, tiny_ids).generate([replace(r, budget=9) for r in requests], SAMPLED)
    assert all(c.routed_experts is None for c in flat(plain))
    again = [replace(r, prefixes=tuple(group)) for r, group in zip(requests, plain, strict=True)]
    for completion in flat(engine.generate(again, SAMPLED)):
        assert (completion.routed_experts[:9] == 255).all(), "not recorded then, and said so"
        assert (completion.routed_experts[9:] < 6).all()


def test_double_precision_makes_company_invisible(tiny_folder, tiny_ids, prompts):
    """In float64 the log-probs agree to 1e-6 (norms and routers round to float32) whatever shares the batch."""
    from kimi_vl import load_model

    model = load_model(tiny_folder).double()
    model.set_experts_implementation("eager")  # the grouped product has no float64
    requests = requests_for(prompts, n=3)
    stop, barred = tiny_ids
    barred = [*barred, *stop]
    whole = EngineDriver(TransformersEngine(model, stop_ids=[], barred_ids=barred)).generate(requests, SAMPLED)
    small = EngineDriver(
        TransformersEngine(model, stop_ids=[], barred_ids=barred, limits=BatchLimits(rows=2, tokens=200))
    )
    assert_same(small.generate(requests, SAMPLED), whole, atol=2e-6)
