"""Samples to micro-batches: nothing lost, nothing over the budget, positions where they belong."""

from itertools import pairwise

import numpy as np
import pytest
from rl_helpers import make_prompt, make_samples, new_id

from rl.learner.batch import collect_images, make_micro_batch, split_by_tokens
from rl.types import Sample, StepBatch


def packed_tokens(part):
    """Tokens of one packed row: each prompt once, each response but its last token."""
    prompts = {id(s.prompt): len(s.prompt.input_ids) for s in part}
    return sum(prompts.values()) + sum(len(s.token_ids) - 1 for s in part)


@pytest.mark.parametrize("budget", [1, 20, 27, 45, 100, 10_000])
def test_splits_keep_every_sample_and_the_budget(rng, model, budget):
    samples = make_samples(rng, model, per_prompt=5)
    parts = split_by_tokens(samples, budget=budget)
    assert sorted(id(s) for part in parts for s in part) == sorted(id(s) for s in samples)
    for part in parts:
        assert len(part) == 1 or packed_tokens(part) <= budget
        runs = [id(s.prompt) for s in part]
        assert len(set(runs)) == 1 + sum(a != b for a, b in pairwise(runs)), "samples of a prompt stand together"
    if budget == 10_000:
        assert len(parts) == 1


def test_a_group_is_cut_only_where_it_does_not_fit_whole(rng, model):
    samples = make_samples(rng, model)
    largest = max(
        packed_tokens([s for s in samples if s.prompt is p]) for p in {id(s): s.prompt for s in samples}.values()
    )
    parts = split_by_tokens(samples, budget=largest)
    assert len(parts) > 1
    assert sum(len({id(s.prompt) for s in part}) for part in parts) == 4, "four prompts, each read once"


def test_a_micro_batch_says_where_every_response_token_is(rng, model):
    samples = make_samples(rng, model)
    micro = make_micro_batch(samples, collect_images(samples, model.config))
    assert len(micro.input_ids) == len(micro.position_ids) == packed_tokens(samples), "no padding"
    starts = {}
    for segment in micro.segments:
        starts.setdefault(segment.start, segment)
    at = 0
    for row, sample in enumerate(samples):
        count, prompt = len(sample.token_ids), sample.prompt.input_ids
        assert micro.lengths[row] == count
        assert micro.targets[at : at + count].tolist() == sample.token_ids.tolist()
        assert micro.old_logprobs[at : at + count].tolist() == sample.old_logprobs.tolist()
        assert (micro.sequence_ids[at : at + count] == row).all()
        assert micro.advantages[row] == pytest.approx(sample.advantage)
        first, *others = micro.predictors[at : at + count].tolist()
        begin = first - len(prompt) + 1
        assert micro.input_ids[begin : first + 1].tolist() == prompt.tolist(), "the last prompt token predicts first"
        assert micro.position_ids[begin : first + 1].tolist() == list(range(len(prompt)))
        assert micro.input_ids[others].tolist() == sample.token_ids[:-1].tolist(), "each token predicts the next"
        assert micro.position_ids[others].tolist() == [len(prompt) + i for i in range(count - 1)]
        if others:
            own = starts[others[0]]
            assert (own.length, own.prefix_start, own.prefix_length) == (count - 1, begin, len(prompt))
        at += count
    assert at == len(micro.targets)


def test_features_follow_the_placeholders(rng, model):
    """The rows of `feature_index`, in order, are those of each prompt in the row."""
    samples = make_samples(rng, model, per_prompt=2)
    images = collect_images(samples, model.config)
    prompts = list({id(s.prompt): s.prompt for s in samples}.values())
    assert len(images.patches) == sum(len(p.patches) for p in prompts), "each prompt's images once"
    picked = samples[::-1]
    micro = make_micro_batch(picked, images)
    placeholders = int((micro.input_ids == model.config.media_placeholder_token_id).sum())
    assert len(micro.feature_index) == placeholders
    starts = dict(zip(map(id, prompts), np.cumsum([0] + [len(p.pixel_values) // 4 for p in prompts]), strict=False))
    expected = [starts[id(p)] + i for p in prompts[::-1] for i in range(len(p.pixel_values) // 4)]
    assert micro.feature_index.tolist() == expected


def test_a_step_without_images(rng, model):
    prompt = make_prompt(rng, model, text=5)
    sample = Sample(
        id=new_id(), prompt=prompt, token_ids=np.array([1]), old_logprobs=np.zeros(1, np.float32), advantage=1.0
    )
    assert collect_images([sample], model.config) is None
    assert len(make_micro_batch([sample], None).feature_index) == 0


def test_denominators_are_of_the_whole_step(rng, model):
    samples = make_samples(rng, model)
    step = StepBatch(samples=tuple(samples))
    assert (step.sequences, step.tokens) == (12, sum(len(s.token_ids) for s in samples))


@pytest.mark.parametrize(("tokens", "logprobs", "message"), [(2, 3, "2 tokens but 3"), (0, 0, "at least one")])
def test_a_sample_that_cannot_be_trained_on_is_refused(rng, model, tokens, logprobs, message):
    with pytest.raises(ValueError, match=message):
        Sample(
            id=new_id(),
            prompt=make_prompt(rng, model),
            token_ids=np.arange(tokens),
            old_logprobs=np.zeros(logprobs, np.float32),
            advantage=0.0,
        )
