"""The ratio's denominator is the learner's own: an engine that differs from it is no movement of the policy."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, build_model, make_learner, make_prompt, new_id

from configs.algorithms import ALGORITHMS, KLConfig, LossConfig
from configs.correction import CorrectionConfig
from configs.rl import RLConfig, SamplingConfig
from rewards.types import Score, Verdict, VerdictKind
from rl.samples import make_samples, sample_metrics
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.sources.group_building import make_groups
from rollouts.types import Request, Rollout, ScoredRollout, Segment

CORRECTED = {
    name: CorrectionConfig(level="sequence" if row.sequence_level else "token") for name, row in ALGORITHMS.items()
}


@pytest.fixture(scope="module")
def groups():
    """What an engine in bfloat16 drew for four prompts, one with an image; every second completion earns 1."""
    rng, model = np.random.default_rng(0), build_model(dtype=torch.bfloat16)
    engine = EngineDriver(TransformersEngine(copy.deepcopy(model), stop_ids=[0], barred_ids=barred_ids(model)))
    prompts = [make_prompt(rng, model, text=t, grids=g) for t, g in ((5, ()), (3, ((2, 4),)), (6, ()), (9, ()))]
    requests = [Request(prompt=p, n=4, seed=i) for i, p in enumerate(prompts)]
    drawn = engine.generate(requests, SamplingConfig(max_new_tokens=16, temperature=0.9))
    scores = [[scored(p, c, i % 2) for i, c in enumerate(cs)] for p, cs in zip(prompts, drawn, strict=True)]
    return make_groups(prompts, scores)


def scored(prompt, completion, reward):
    kind = VerdictKind.CORRECT if reward else VerdictKind.WRONG
    score = Score(verdict=Verdict(kind=kind, score=reward), reward=float(reward), parts={})
    rollout = Rollout(prompt=prompt, index=int(new_id()), completion=completion, text="")
    return ScoredRollout(rollout=rollout, score=score)


def changed(groups, change):
    """The groups with `change` applied to each completion and the float32 policy's own log-probs of it."""
    notes = make_learner(build_model(), minibatches=2).model_outputs(groups)

    def member(m, own):
        return replace(m, rollout=replace(m.rollout, completion=change(m.rollout.completion, own)))

    return [
        replace(g, rollouts=tuple(member(m, n.policy_logprobs) for m, n in zip(g.rollouts, own, strict=True)))
        for g, own in zip(groups, notes, strict=True)
    ]


def samples_of(learner, groups, loss):
    config = RLConfig(steps=10, loss=loss, sampling=SamplingConfig(max_new_tokens=16))
    return make_samples(groups, config, learner.model_outputs(groups))


def updates(learner, samples):
    """The metrics of each optimizer step of an iteration, in order."""
    seen, accumulate = [], learner.accumulate
    learner.accumulate = lambda *args: seen.append(accumulate(*args)) or seen[-1]
    learner.update(samples)
    return seen


@pytest.mark.parametrize("minibatches", [1, 2])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_first_update_clips_nothing_in_bfloat16(groups, algorithm, minibatches):
    """The engine is off by far more than GSPO's clip, and the learner packs rows of another size."""
    loss = LossConfig(algorithm=algorithm)
    learner = make_learner(build_model(dtype=torch.bfloat16), loss=loss, minibatches=minibatches, micro_batch_tokens=60)
    first, *later = updates(learner, samples_of(learner, groups, loss))
    assert 0.01 < first["logprob_gap_max"] < 1, "engine and learner differ"
    assert first.get("clip_fraction", 0.0) == 0
    assert first.get("squared_log_ratio", 0.0) == 0
    assert len(later) == minibatches - 1
    for metrics in later:
        assert metrics.get("clip_fraction", 1.0) > 0 or algorithm not in ("gspo", "rloo"), "the policy has moved"


@pytest.mark.parametrize("minibatches", [1, 2])
def test_an_engine_that_is_off_changes_no_gradient(groups, minibatches):
    """Log-probs of the engine that are shifted by 0.5 change metrics, and neither losses nor weights."""
    ends = []
    for shift in (0.0, 0.5):
        loss = LossConfig(algorithm="grpo")
        learner = make_learner(build_model(), loss=loss, minibatches=minibatches)
        shifted = changed(groups, lambda c, own, d=shift: replace(c, policy_logprobs=own - np.float32(d)))
        seen = updates(learner, samples_of(learner, shifted, loss))
        ends.append((learner.model.state_dict(), [m["loss"] for m in seen], seen[0]))
    (exact, losses, _), (off, others, first) = ends
    assert losses == others
    assert all(torch.equal(exact[name], off[name]) for name in exact)
    assert first["logprob_gap_max"] == pytest.approx(0.5, rel=1e-3)
    assert first["approx_kl"] == pytest.approx(np.exp(0.5) - 1.5, rel=1e-3), "of the policy that sampled"


def test_the_age_of_a_sample_is_not_in_the_ratio(groups):
    """Proximal log-probs (AReaL, verl): the age of a completion enters by `correction` alone."""

    def older(c, own):
        return replace(
            c,
            policy_logprobs=own - 0.5,
            sampler_logprobs=own - 0.5,
            segments=(Segment(start=0, stop=len(c.token_ids), version=0),),
        )

    model, stale = build_model(), changed(groups, older)
    for correction, mean in ((None, None), (CorrectionConfig(high=3.0), np.exp(0.5))):
        loss = LossConfig(algorithm="grpo", correction=correction)
        learner = make_learner(copy.deepcopy(model), loss=loss, minibatches=2)
        learner.version = 2
        samples = samples_of(learner, stale, loss)
        own = [n.policy_logprobs for notes in learner.model_outputs(stale) for n in notes]
        assert all(np.array_equal(s.old_logprobs, o) for s, o in zip(samples, own, strict=True))
        first, _ = updates(learner, samples)
        assert first["clip_fraction"] == 0
        assert first.get("correction_mean") == (mean and pytest.approx(mean, rel=1e-3))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_correction_alone_weighs_the_engine(groups, algorithm):
    """Weights are the learner's over the sampler's probability, in the first update and in those after it."""
    loss = LossConfig(algorithm=algorithm, correction=replace(CORRECTED[algorithm], high=3.0))
    off = changed(groups, lambda c, own: replace(c, sampler_logprobs=own - 0.01))
    learner = make_learner(build_model(), loss=loss, minibatches=2)
    samples = samples_of(learner, off, loss)
    lengths = np.array([len(s.token_ids) for s in samples])
    sequences = float((np.exp(0.01 * lengths) * lengths).sum() / lengths.sum())
    expected = sequences if ALGORITHMS[algorithm].sequence_level else np.exp(0.01)
    found = [metrics["correction_mean"] for metrics in updates(learner, samples)]
    assert np.mean(found) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("loss", "options", "runs"),
    [
        (LossConfig(algorithm="grpo"), {}, False),
        (LossConfig(algorithm="grpo", correction=CorrectionConfig()), {}, False),
        (LossConfig(algorithm="grpo"), {"minibatches": 2}, True),
        (LossConfig(algorithm="kimi_k15"), {"epochs": 2}, True),
        (LossConfig(algorithm="reinforce_pp"), {}, True),
        (LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1)), {}, False),
    ],
    ids=["one update", "corrected", "two minibatches", "two epochs", "KL in the reward", "KL in the loss"],
)
def test_the_policy_is_read_ahead_only_where_its_logprobs_are_used(groups, loss, options, runs):
    """With one update a step its own forward pass gives the denominator."""
    learner = make_learner(build_model(), loss=loss, **options)
    notes = [n for notes in learner.model_outputs(groups) for n in notes]
    assert all((n.policy_logprobs is not None) == runs for n in notes)


def test_the_distance_to_the_reference_is_the_learners(groups):
    """An engine that is off by 0.5 does not look like a policy that has left its reference."""
    loss = LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1))
    off = changed(groups, lambda c, own: replace(c, policy_logprobs=own - 0.5))
    learner = make_learner(build_model(), loss=loss, minibatches=2)
    assert sample_metrics(samples_of(learner, off, loss))["kl_reference"] == pytest.approx(0, abs=1e-9)
