"""The embedded engine against `model.generate` and a full forward pass; what may and may not change a sample."""

import numpy as np
import pytest
import torch
from engine_helpers import build_prompt, engine_of, requests_for, tokens_of

from configs.rl import SamplingConfig
from rollouts.engines.continuous_batching import BatchLimits
from rollouts.engines.sampling import barred_token_mask, filter_logprobs, policy_logprobs
from rollouts.types import Request

GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=20)
SAMPLED = SamplingConfig(temperature=0.9, max_new_tokens=20)


def reference_logits(model, prompt, tokens):
    """Logits `[T, V]` that predict `tokens`, by one forward pass of the whole sequence without any cache."""
    ids = torch.from_numpy(np.concatenate([prompt.input_ids, tokens]))[None]
    images = {}
    if len(prompt.pixel_values):
        images = {
            "pixel_values": torch.from_numpy(prompt.pixel_values),
            "image_grid_hws": torch.from_numpy(prompt.image_grid_hws),
        }
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **images).logits
    return logits[0, len(prompt.input_ids) - 1 : -1]


def barred_of(model, ids):
    """The mask of an engine made by `engine_of` without stop ids."""
    return barred_token_mask(model.config.text_config.vocab_size, [*ids[0], *ids[1]])


def test_greedy_equals_generate(engine, tiny_model, tiny_ids, prompts):
    banned = [[i] for i in (*tiny_ids[0], *tiny_ids[1])]
    expected = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt.input_ids)[None]
        images = {}
        if len(prompt.pixel_values):
            images = {
                "pixel_values": torch.from_numpy(prompt.pixel_values),
                "image_grid_hws": torch.from_numpy(prompt.image_grid_hws),
            }
        output = tiny_model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            bad_words_ids=banned,
            **images,
        )
        expected.append([output[0, ids.shape[1] :].tolist()])
    assert tokens_of(engine.generate(requests_for(prompts, n=1), GREEDY)) == expected
    assert len({tuple(group[0]) for group in expected}) == len(prompts), "a model that says one thing shows nothing"


def test_logprobs_equal_a_full_forward_pass(engine, tiny_model, tiny_ids, prompts):
    barred = barred_of(tiny_model, tiny_ids)
    for prompt, group in zip(prompts, engine.generate(requests_for(prompts, n=3), SAMPLED), strict=True):
        for completion in group:
            logits = reference_logits(tiny_model, prompt, completion.token_ids)
            table = policy_logprobs(logits, SAMPLED.temperature, barred)
            expected = table.gather(-1, torch.from_numpy(completion.token_ids)[:, None])[:, 0].numpy()
            assert np.abs(completion.policy_logprobs - expected).max() < 1e-4
            assert (completion.policy_logprobs == completion.sampler_logprobs).all()


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(max_new_tokens=12, top_p=0.7),
        SamplingConfig(max_new_tokens=12, top_k=5),
        SamplingConfig(max_new_tokens=12, min_p=0.2, temperature=0.8),
        SamplingConfig(max_new_tokens=12, top_p=0.9, top_k=20, min_p=0.05, temperature=1.3),
    ],
)
def test_filtered_draws_keep_both_logprobs(engine, tiny_model, tiny_ids, prompts, sampling):
    """Policy: of the whole distribution; sampler: of what was left, renormalised."""
    barred = barred_of(tiny_model, tiny_ids)
    for prompt, group in zip(prompts[:2], engine.generate(requests_for(prompts[:2], n=3), sampling), strict=True):
        for completion in group:
            policy = policy_logprobs(
                reference_logits(tiny_model, prompt, completion.token_ids), sampling.temperature, barred
            )
            index = torch.from_numpy(completion.token_ids)[:, None]
            sampler = filter_logprobs(policy, sampling).gather(-1, index)[:, 0].numpy()
            assert np.abs(completion.policy_logprobs - policy.gather(-1, index)[:, 0].numpy()).max() < 1e-4
            assert np.abs(completion.sampler_logprobs - sampler).max() < 1e-4
            assert (completion.sampler_logprobs > completion.policy_logprobs).any()
            assert np.isfinite(completion.sampler_logprobs).all(), "a filtered token was drawn"


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED, SamplingConfig(max_new_tokens=20, top_k=3)])
def test_barred_tokens_are_never_sampled(tiny_model, tiny_ids, prompts, sampling):
    """Media placeholder, padding, roles, tools: not even by a policy that wants nothing else."""
    stop, barred = tiny_ids
    placeholder = tiny_model.config.media_placeholder_token_id
    assert {placeholder, tiny_model.config.pad_token_id, tiny_model.config.bos_token_id} <= set(barred)
    assert not set(stop) & set(barred)
    engine = engine_of(tiny_model, tiny_ids)
    hidden = []
    handle = tiny_model.lm_head.register_forward_pre_hook(lambda _, inputs: hidden.append(inputs[0].clone()))
    engine.generate(requests_for(prompts, n=1), GREEDY)
    handle.remove()
    with torch.inference_mode(False), torch.no_grad():
        direction = torch.cat(hidden).mean(0).clone()
        tiny_model.lm_head.weight[barred] += 1000 * direction / direction.square().sum()
        logits = tiny_model.lm_head(torch.cat(hidden).clone())
    assert (logits.argmax(-1)[:, None] == torch.tensor(barred)).any(1).float().mean() > 0.8, "the test forces nothing"
    for group in engine.generate(requests_for(prompts, n=4), sampling):
        for completion in group:
            assert not set(completion.token_ids.tolist()) & set(barred)
            assert np.isfinite(completion.policy_logprobs).all()


def test_a_sample_does_not_depend_on_its_company(tiny_model, tiny_ids, prompts):
    """Alone, with others, in another order, in small batches: the same tokens for the same request."""
    requests = requests_for(prompts, n=[3, 1, 4, 2])
    engine = engine_of(tiny_model, tiny_ids)
    together = tokens_of(engine.generate(requests, SAMPLED))
    assert [len(group) for group in together] == [3, 1, 4, 2]
    assert [tokens_of(engine.generate([r], SAMPLED))[0] for r in requests] == together
    assert tokens_of(engine.generate(requests[::-1], SAMPLED))[::-1] == together
    for max_rows in (1, 3, 5, 8):
        small = engine_of(tiny_model, tiny_ids, limits=BatchLimits(rows=max_rows))
        assert tokens_of(small.generate(requests, SAMPLED)) == together
    fewer = [Request(prompt=r.prompt, n=1, seed=r.seed) for r in requests]
    assert tokens_of(engine.generate(fewer, SAMPLED)) == [group[:1] for group in together]


def test_seeds_and_sample_indices_make_samples_differ(engine, prompts):
    a, b = requests_for([prompts[0]], n=6, seed=1), requests_for([prompts[0]], n=6, seed=2)
    first, second = tokens_of(engine.generate([*a, *b], SAMPLED))
    assert len({tuple(t) for t in [*first, *second]}) == 12
    assert tokens_of(engine.generate(a, SAMPLED))[0] == first


def often(engine, prompts, n=8):
    """A token that samples hold at unlike places."""
    drawn = [t for group in tokens_of(engine.generate(requests_for(prompts, n=n), SAMPLED)) for t in group]
    return max({t for tokens in drawn for t in tokens}, key=lambda t: len({s.index(t) for s in drawn if t in s}))


def test_stop_tokens_end_a_sample_and_stay(tiny_model, tiny_ids, prompts):
    """Samples of a group end at unlike times, so finished rows are dropped while others run on."""
    requests = requests_for(prompts, n=8)
    free = engine_of(tiny_model, tiny_ids)
    whole = tokens_of(free.generate(requests, SAMPLED))
    stop = often(free, prompts)
    stopping = engine_of(tiny_model, ([], [*tiny_ids[0], *tiny_ids[1]]), stop_ids=[stop])
    results = stopping.generate(requests, SAMPLED)
    ended = 0
    for group, full in zip(results, whole, strict=True):
        for completion, tokens in zip(group, full, strict=True):
            cut = tokens[: tokens.index(stop) + 1] if stop in tokens else tokens
            assert completion.token_ids.tolist() == cut
            assert completion.finish_reason == ("stop" if stop in tokens else "length")
            assert len(completion.policy_logprobs) == len(completion.sampler_logprobs) == len(cut)
            ended += stop in tokens
    assert 5 <= ended < 32, f"{ended} of 32 samples stop: the test needs some that do and some that do not"


def test_a_stop_token_at_the_limit_is_a_stop(tiny_model, tiny_ids, prompts):
    first = tokens_of(engine_of(tiny_model, tiny_ids).generate(requests_for(prompts[:1], n=1), GREEDY))[0][0][0]
    engine = engine_of(tiny_model, ([], []), stop_ids=[first])
    [[completion]] = engine.generate(requests_for(prompts[:1], n=1), SamplingConfig(temperature=0.0, max_new_tokens=1))
    assert completion.finish_reason == "stop"
    assert completion.token_ids.tolist() == [first]


def test_one_token_is_a_limit_too(engine, prompts):
    whole = tokens_of(engine.generate(requests_for(prompts), SAMPLED))
    short = engine.generate(requests_for(prompts), SamplingConfig(temperature=0.9, max_new_tokens=1))
    assert tokens_of(short) == [[tokens[:1] for tokens in group] for group in whole]
    assert all(c.finish_reason == "length" for group in short for c in group)


def test_no_requests_no_completions(engine):
    assert engine.generate([], SAMPLED) == []


def test_each_image_passes_the_tower_once(engine, tiny_model, prompts):
    patches = []
    tiny_model.model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: patches.append(len(kwargs.get("pixel_values", args[0] if args else None))),
        with_kwargs=True,
    )
    engine.generate(requests_for(prompts, n=5), SAMPLED)
    assert sum(patches) == sum(len(p.pixel_values) for p in prompts), "five samples a prompt share its images"


def test_the_language_model_reads_each_prompt_once(engine, tiny_model, prompts):
    rows = []
    tiny_model.model.language_model.register_forward_pre_hook(
        lambda _, args, kwargs: rows.append(len(kwargs["inputs_embeds"])), with_kwargs=True
    )
    engine.generate(requests_for(prompts, n=5), SAMPLED)
    assert sum(rows) == len(prompts)


def test_completions_name_the_version_that_wrote_them(engine, tiny_model, prompts):
    assert engine.version == 0
    weights = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    engine.load_weights(weights, version=7)
    assert engine.version == 7
    for group in engine.generate(requests_for(prompts), SAMPLED):
        for completion in group:
            [segment] = completion.segments
            assert (segment.start, segment.stop, segment.version) == (0, len(completion.token_ids), 7)


def test_new_weights_are_served(engine, tiny_model, tiny_ids, prompts):
    before = tokens_of(engine.generate(requests_for(prompts, n=1), GREEDY))
    weights = {name: tensor.numpy().copy() for name, tensor in tiny_model.state_dict().items()}
    changed = {name: value + 0.05 * np.sign(np.sin(np.arange(value.size))).reshape(value.shape).astype(value.dtype)
               for name, value in weights.items()}  # fmt: skip
    engine.load_weights(changed, version=1)
    after = tokens_of(engine.generate(requests_for(prompts, n=1), GREEDY))
    assert after != before
    engine.load_weights(weights, version=2)
    assert tokens_of(engine.generate(requests_for(prompts, n=1), GREEDY)) == before


@pytest.mark.parametrize("fault", ["missing", "unknown", "shape"])
def test_weights_that_do_not_fit_change_nothing(engine, tiny_model, fault):
    old = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    weights = {name: tensor + 1 for name, tensor in old.items()}
    last = list(weights)[-1]
    if fault == "missing":
        del weights[last]
    elif fault == "unknown":
        weights["model.extra"] = torch.zeros(2)
    else:
        weights[last] = torch.zeros(3, 5)
    with pytest.raises(ValueError, match="model.extra" if fault == "unknown" else last):
        engine.load_weights(weights, version=9)
    assert engine.version == 0
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor, old[name]), name


def test_weights_in_bfloat16_serve_too(tiny_model, tiny_ids, prompts):
    """The engine's dtype is its own: float32 weights are rounded on arrival."""
    engine = engine_of(tiny_model.to(torch.bfloat16), tiny_ids)
    weights = {name: tensor.float().numpy().copy() for name, tensor in tiny_model.state_dict().items()}
    engine.load_weights(weights, version=1)
    for name, tensor in tiny_model.state_dict().items():
        assert torch.equal(tensor.float(), torch.from_numpy(weights[name])), name
    assert all(len(c.token_ids) == 20 for group in engine.generate(requests_for(prompts), SAMPLED) for c in group)


def test_prompts_of_one_token(engine, tiny_model, rng):
    prompt = build_prompt(rng, tiny_model.config, text=1)
    [[completion]] = engine.generate(requests_for([prompt], n=1), GREEDY)
    assert len(completion.token_ids) == 20
