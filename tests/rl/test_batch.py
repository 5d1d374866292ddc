"""Samples to micro-batches: nothing lost, nothing over the budget, positions where they belong."""

import numpy as np
import pytest
import torch
from rl_helpers import make_prompt, make_samples

from rl.batch import collect_images, make_micro_batch, split_by_tokens
from rl.types import Sample, StepBatch


@pytest.mark.parametrize("budget", [1, 20, 45, 100, 10_000])
def test_splits_keep_every_sample_and_the_budget(rng, model, budget):
    samples = make_samples(rng, model)
    parts = split_by_tokens(samples, budget=budget)
    assert sorted(id(s) for part in parts for s in part) == sorted(id(s) for s in samples)
    for part in parts:
        assert len(part) == 1 or len(part) * max(len(s) for s in part) <= budget
    if budget == 10_000:
        assert len(parts) == 1


def test_splits_put_similar_lengths_together(rng, model):
    lengths = [[len(s) for s in part] for part in split_by_tokens(make_samples(rng, model), budget=60)]
    assert len(lengths) > 2
    flat = [n for part in lengths for n in part]
    assert flat == sorted(flat, reverse=True)


def test_a_micro_batch_says_where_every_response_token_is(rng, model):
    samples = make_samples(rng, model)
    micro = make_micro_batch(samples, collect_images(samples))
    flat = micro.input_ids.flatten()
    assert torch.equal(flat[micro.predictors + 1], micro.targets), "a predictor stands before its token"
    at = 0
    for row, sample in enumerate(samples):
        count = len(sample.token_ids)
        assert micro.lengths[row] == count
        assert micro.attention_mask[row].sum() == len(sample)
        assert micro.attention_mask[row, : len(sample)].all()
        assert micro.input_ids[row, : len(sample.prompt.input_ids)].tolist() == sample.prompt.input_ids.tolist()
        assert micro.targets[at : at + count].tolist() == sample.token_ids.tolist()
        assert micro.old_logprobs[at : at + count].tolist() == sample.old_logprobs.tolist()
        assert (micro.sequence_ids[at : at + count] == row).all()
        assert micro.advantages[row] == pytest.approx(sample.advantage)
        first = int(micro.predictors[at]) - row * micro.input_ids.shape[1]
        assert first == len(sample.prompt.input_ids) - 1, "the last prompt token predicts the first response token"
        at += count
    assert at == len(micro.targets)


def test_features_follow_the_placeholders(rng, model):
    """The rows of `feature_index`, in order, are those of each sample's own prompt."""
    samples = make_samples(rng, model, per_prompt=2)
    images = collect_images(samples)
    prompts = list({id(s.prompt): s.prompt for s in samples}.values())
    assert len(images.pixel_values) == sum(len(p.pixel_values) for p in prompts), "each prompt's images once"
    picked = samples[::-1]
    micro = make_micro_batch(picked, images)
    placeholders = int((micro.input_ids == model.config.media_placeholder_token_id).sum())
    assert len(micro.feature_index) == placeholders
    starts = dict(zip(map(id, prompts), np.cumsum([0] + [len(p.pixel_values) // 4 for p in prompts]), strict=False))
    expected = [starts[id(s.prompt)] + i for s in picked for i in range(len(s.prompt.pixel_values) // 4)]
    assert micro.feature_index.tolist() == expected


def test_a_step_without_images(rng, model):
    prompt = make_prompt(rng, model, text=5)
    sample = Sample(prompt=prompt, token_ids=np.array([1]), old_logprobs=np.zeros(1, np.float32), advantage=1.0)
    assert collect_images([sample]) is None
    assert len(make_micro_batch([sample], None).feature_index) == 0


def test_denominators_are_of_the_whole_step(rng, model):
    samples = make_samples(rng, model)
    step = StepBatch(samples=tuple(samples))
    assert (step.sequences, step.tokens) == (12, sum(len(s.token_ids) for s in samples))


@pytest.mark.parametrize(("tokens", "logprobs", "message"), [(2, 3, "2 tokens but 3"), (0, 0, "at least one")])
def test_a_sample_that_cannot_be_learnt_from_is_refused(rng, model, tokens, logprobs, message):
    with pytest.raises(ValueError, match=message):
        Sample(
            prompt=make_prompt(rng, model),
            token_ids=np.arange(tokens),
            old_logprobs=np.zeros(logprobs, np.float32),
            advantage=0.0,
        )
