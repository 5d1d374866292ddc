"""vLLM's own sampler with asynchronous scheduling: the distribution, the log-probs and the versions of its draws."""

import numpy as np
import pytest
import torch
from vllm_helpers import build_prompt, embedded, flat, gaps, learner_logprobs, move, requests_for, tokens_of

from configs.rl import SamplingConfig
from kimi_vl import load_model
from rollouts.engines.sampling import barred_token_mask, policy_logprobs
from rollouts.types import Request

pytestmark = pytest.mark.timeout(900)
THRESHOLD = 1e-3
WARM = SamplingConfig(max_new_tokens=24, temperature=0.7)
GREEDY = SamplingConfig(max_new_tokens=16, temperature=0)


def test_its_options_arrive(native):
    """vLLM's CPU build schedules one step after the other, whatever it is given."""
    config = native.engine._vllm.vllm_config
    assert config.model_config.logprobs_mode == "processed_logprobs"
    assert config.scheduler_config.max_num_seqs == native.engine._rows == 512
    assert config.model_config.logits_processors is None


def test_greedy_completions_are_the_embedded_engines(native, model, ids, prompts):
    requests = requests_for(prompts)
    assert max(gaps(native.generate(requests, GREEDY), embedded(model, ids).generate(requests, GREEDY))) < THRESHOLD


def test_its_log_probs_are_the_learners(native, checkpoint, ids, prompts):
    """Under the temperature and the barred tokens, with images, before and after a weight sync."""
    model = load_model(checkpoint)
    for version in (1, 2):
        native.load_weights(move(model, seed=version).state_dict(), version=version)
        results = native.generate(requests_for(prompts), WARM)
        own = learner_logprobs(load_like(checkpoint, model), prompts, results, ids[1], WARM.temperature)
        for expected, completion in zip(own, flat(results), strict=True):
            assert np.abs(expected - completion.policy_logprobs).max() < THRESHOLD
            assert np.array_equal(completion.policy_logprobs, completion.sampler_logprobs)
            assert {s.version for s in completion.segments} == {version}


def load_like(checkpoint, model):
    """A copy for a learner, which gives a model other attention."""
    copy = load_model(checkpoint)
    copy.load_state_dict(model.state_dict())
    return copy


def test_draws_have_the_distribution_of_the_policy(native, model, ids, rng):
    """Pearson's chi-square of 4,000 first tokens against the exact probabilities; a warmer policy is told from it."""
    prompt, count = build_prompt(rng, model.config, text=10), 4000
    found = native.generate(
        [Request(prompt=prompt, n=count, seed=7)], SamplingConfig(max_new_tokens=1, temperature=0.7)
    )
    drawn = np.bincount([c.token_ids[0] for c in found[0]], minlength=model.config.text_config.vocab_size)
    with torch.inference_mode():
        logits = model(input_ids=torch.from_numpy(prompt.input_ids)[None]).logits[:, -1]
    barred = barred_token_mask(logits.shape[-1], ids[1])
    exact, warmer = (policy_logprobs(logits, t, barred).exp().double()[0].numpy() for t in (0.7, 0.9))
    assert drawn[list(ids[1])].sum() == 0
    assert chi_square_score(drawn, exact * count) < 4
    assert chi_square_score(drawn, warmer * count) > 6


def chi_square_score(drawn, expected):
    """Pearson's statistic as standard deviations above its mean (Wilson and Hilferty); rare tokens are one cell."""
    rare = expected < 5
    drawn = np.append(drawn[~rare], drawn[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    freedom = len(expected) - 1
    statistic = float(((drawn - expected) ** 2 / np.maximum(expected, 1e-9)).sum())
    spread = 2 / (9 * freedom)
    return ((statistic / freedom) ** (1 / 3) - (1 - spread)) / spread**0.5


def test_seeds_decide_the_draws(native, prompts):
    requests = requests_for(prompts)
    together = native.generate(requests, WARM)
    assert tokens_of(native.generate(requests, WARM)) == tokens_of(together)
    assert tokens_of([native.generate([request], WARM)[0] for request in requests]) == tokens_of(together)
    assert tokens_of(native.generate(requests_for(prompts, seed=900), WARM)) != tokens_of(together)
    for group in together:
        assert len({tuple(c.token_ids) for c in group}) == len(group)


def test_tokens_of_a_step_that_ran_ahead_are_of_the_version_before(native, checkpoint, prompts, ids):
    requests = [Request(prompt=prompts[1], n=1, seed=1, budget=6), Request(prompt=prompts[2], n=4, seed=2)]
    old, new = load_model(checkpoint), move(load_model(checkpoint))
    stream = native.stream(requests, WARM)
    next(stream)
    native.load_weights(new.state_dict(), version=5)
    (_, found), *_ = stream
    went_on = [c for c in found if len(c.segments) == 2]
    assert went_on
    before = learner_logprobs(old, [prompts[2]], [went_on], ids[1], WARM.temperature)
    for completion, expected in zip(went_on, before, strict=True):
        first, second = completion.segments
        assert (first.version, second.version) == (0, 5)
        assert 6 <= first.stop <= 8
        gap = np.abs(expected - completion.policy_logprobs)
        assert gap[: first.stop].max() < THRESHOLD
        assert gap[first.stop :].max() > 0.01
    assert not native.engine._running


def test_pieces_go_on_with_draws_of_their_own(native, prompts):
    pieces = native.generate(requests_for(prompts, budget=7), WARM)
    requests = [
        Request(prompt=p, n=3, seed=100 + i, prefixes=tuple(group))
        for i, (p, group) in enumerate(zip(prompts, pieces, strict=True))
    ]
    for before, after in zip(flat(pieces), flat(native.generate(requests, WARM)), strict=True):
        length = len(before.token_ids)
        assert after.token_ids[:length].tolist() == before.token_ids.tolist()
        if before.finish_reason == "abort":
            assert len(after.token_ids) > length
            assert after.token_ids[length : 2 * length].tolist() != before.token_ids.tolist()


def test_filters_need_the_exact_sampler(native, prompts):
    with pytest.raises(ValueError, match=r"sampling with top_p = 0\.9 needs rl\.engine_options\.sampler: exact"):
        native.generate(requests_for(prompts), SamplingConfig(max_new_tokens=4, top_p=0.9))
    assert tokens_of(native.generate(requests_for(prompts), WARM))
