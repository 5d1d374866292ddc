"""Tokens that must not be trained on: inserted ones and those of an old policy. They are context, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, build_model, make_learner, make_prompt, make_samples, make_scored, new_id

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from configs.rl import RLConfig
from rewards.types import VerdictKind
from rl.algorithms.policy_loss import LossInputs, policy_loss
from rl.learner.batch import collect_images, make_micro_batch
from rl.samples import make_samples as samples_of
from rl.samples import sample_metrics
from rl.types import ModelOutputs, Sample, StepBatch
from rollouts.engines.sampling import barred_token_mask, policy_logprobs
from rollouts.sources.group_building import group_metrics, make_groups
from rollouts.types import Completion, Rollout, ScoredRollout, Segment

ALGORITHMS = ("grpo", "dr_grpo", "dapo", "cispo", "gspo", "rloo", "kimi_k15")
NOTHING = ModelOutputs()


def masked(rng, samples):
    """The same samples, each with about half of its tokens masked, one at least kept."""
    found = []
    for sample in samples:
        mask = rng.random(len(sample.token_ids)) < 0.5
        mask[rng.integers(len(mask))] = True
        found.append(replace(sample, mask=mask))
    assert any(not s.mask.all() for s in found)
    return found


def gradient(samples, *, loss, **options):
    model = build_model()
    learner = make_learner(model, loss=loss, **options)
    seen = {}
    learner.optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    )
    # an update after the first: its denominators are those of the samples
    return seen, learner._optimizer_step(StepBatch(samples=tuple(samples)), number=2)


def distance(a, b):
    assert a.keys() == b.keys()
    difference = sum(float((a[n].double() - b[n].double()).square().sum()) for n in a)
    return (difference / sum(float(b[n].double().square().sum()) for n in b)) ** 0.5


# By hand


def by_hand(rng, model):
    """Three trained tokens of five with A = 1, one of two with A = -0.5."""
    prompt = make_prompt(rng, model)
    return [
        Sample(
            id=new_id(),
            prompt=prompt,
            token_ids=np.arange(5),
            old_logprobs=np.full(5, -1.0, np.float32),
            advantage=1.0,
            mask=np.array([True, False, True, False, True]),
            sft_mask=True,
        ),
        Sample(
            id=new_id(),
            prompt=prompt,
            token_ids=np.arange(2),
            old_logprobs=np.full(2, -1.0, np.float32),
            advantage=-0.5,
            mask=np.array([False, True]),
        ),
    ]


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("dapo", -(3 * 1 + 1 * -0.5) / 4),  # over the 4 tokens that are trained on, not over 7
        ("grpo", -(1 + -0.5) / 2),  # each answer's mean over its own trained tokens
        ("dr_grpo", -(3 * 1 + 1 * -0.5) / (2 * 8)),
        ("gspo", -(1 + -0.5) / 2),
    ],
)
def test_denominators_by_hand(rng, model, algorithm, expected):
    """Every ratio is 1, so a loss is the advantages over what they are divided by."""
    samples = by_hand(rng, model)
    batch, micro = StepBatch(samples=tuple(samples)), make_micro_batch(samples, None)
    assert (batch.tokens, batch.sequences, batch.sft_tokens) == (4, 2, 3)
    assert micro.targets.tolist() == [0, 2, 4, 1]
    assert (micro.lengths.tolist(), micro.sequence_ids.tolist()) == ([3, 1], [0, 0, 0, 1])
    x = LossInputs(
        logprobs=torch.full((4,), -1.0),
        old_logprobs=micro.old_logprobs,
        advantages=micro.advantages,
        sequence_ids=micro.sequence_ids,
        lengths=micro.lengths,
        step_sequences=batch.sequences,
        step_tokens=batch.tokens,
        max_tokens=8,
    )
    assert float(policy_loss(x, LossConfig(algorithm=algorithm)).loss) == pytest.approx(expected)


def test_a_sample_needs_a_token_to_learn_from(rng, model):
    sample = by_hand(rng, model)[1]
    with pytest.raises(ValueError, match="at least one response token to learn from"):
        replace(sample, mask=np.zeros(2, bool))
    with pytest.raises(ValueError, match="a mask of 3 for 2 tokens"):
        replace(sample, mask=np.ones(3, bool))


# By autograd


def plain_gradient(samples, loss, *, temperature=0.9):
    """Sample by sample through the model's own forward; then the masked tokens are left out of every sum."""
    model = build_model().train()
    barred = barred_token_mask(model.config.text_config.vocab_size, barred_ids(model))
    total = 0.0
    for sample in samples:
        ids = torch.from_numpy(np.concatenate([sample.prompt.input_ids, sample.token_ids]))[None]
        images = {}
        if len(sample.prompt.pixel_values):
            images["pixel_values"] = torch.from_numpy(sample.prompt.pixel_values)
            images["image_grid_hws"] = torch.from_numpy(sample.prompt.image_grid_hws)
        logits = model(input_ids=ids, use_cache=False, **images).logits[0, len(sample.prompt.input_ids) - 1 : -1]
        table = policy_logprobs(logits, temperature, barred)
        new = table.gather(-1, torch.from_numpy(sample.token_ids)[:, None])[:, 0]
        entropy = -(table.exp() * table.masked_fill(barred, 0.0)).sum(-1)
        kept = torch.from_numpy(sample.mask)
        x = LossInputs(
            logprobs=new[kept],
            old_logprobs=torch.from_numpy(sample.old_logprobs)[kept],
            advantages=torch.tensor([sample.advantage]),
            sequence_ids=torch.zeros(int(kept.sum()), dtype=torch.long),
            lengths=torch.tensor([int(kept.sum())]),
            step_sequences=len(samples),
            step_tokens=sum(int(s.mask.sum()) for s in samples),
            max_tokens=16,
            entropy=entropy[kept],
        )
        total = total + policy_loss(x, loss).loss
    total.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, float(total.detach())


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_gradient_is_that_of_the_kept_tokens_alone(rng, model, algorithm):
    loss = LossConfig(algorithm=algorithm, entropy_bonus=0.03)
    samples = masked(rng, make_samples(rng, model))
    expected, value = plain_gradient(samples, loss)
    for budget in (1, 50, 10_000):
        seen, metrics = gradient(samples, loss=loss, micro_batch_tokens=budget)
        assert distance(seen, expected) < 1e-5, budget
        assert metrics["loss"] == pytest.approx(value, rel=1e-4), budget
    whole, _ = gradient([replace(s, mask=None) for s in samples], loss=loss)
    assert distance(whole, expected) > 0.05, "the mask changes nothing, so the test shows nothing"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_said_of_masked_tokens_is_never_read(rng, model, algorithm):
    loss = LossConfig(algorithm=algorithm, entropy_bonus=0.03, sft_coef=0.1)
    samples = masked(rng, make_samples(rng, model))
    spoilt = []
    for sample in samples:
        old = sample.old_logprobs.copy()
        old[~sample.mask] = np.nan
        spoilt.append(replace(sample, old_logprobs=old))
    seen, metrics = gradient(samples, loss=loss)
    again, same = gradient(spoilt, loss=loss)
    assert metrics == same
    assert all(torch.equal(seen[name], again[name]) for name in seen)


def test_a_masked_beginning_is_a_longer_prompt(rng, model):
    """The property behind it: masked tokens are read as if the prompt had said them."""
    prompt = make_prompt(rng, model, text=5)
    tokens, old = rng.integers(0, 40, 9), np.full(9, -3.0, np.float32)
    sample = Sample(
        id=new_id(), prompt=prompt, token_ids=tokens, old_logprobs=old, advantage=0.7, mask=np.arange(9) >= 4
    )
    longer = replace(prompt, id=new_id(), input_ids=np.concatenate([prompt.input_ids, tokens[:4]]))
    other = Sample(id=new_id(), prompt=longer, token_ids=tokens[4:], old_logprobs=old[4:], advantage=0.7)
    for algorithm in ALGORITHMS:
        loss = LossConfig(algorithm=algorithm)
        assert distance(gradient([sample], loss=loss)[0], gradient([other], loss=loss)[0]) < 1e-5


# From rollouts to samples


def rollout(prompt, reward, segments, *, finish="stop"):
    """`segments` are (tokens, version, sampled); log-probs count -1, -2, ..."""
    parts, stop = [], 0
    for tokens, version, sampled in segments:
        parts.append(Segment(start=stop, stop=stop + tokens, version=version, sampled=sampled))
        stop += tokens
    values = -np.arange(1, stop + 1, dtype=np.float32)
    completion = Completion(
        token_ids=np.arange(stop),
        policy_logprobs=values,
        sampler_logprobs=values - 1,
        finish_reason=finish,
        segments=tuple(parts),
    )
    kind = VerdictKind.CORRECT if reward else VerdictKind.WRONG
    score = make_scored(prompt, reward, kind=kind).score
    return ScoredRollout(
        rollout=Rollout(prompt=prompt, index=int(new_id()), completion=completion, text=""), score=score
    )


@pytest.fixture
def group(rng, model):
    """A long answer of versions 2, 3 and 4 with a forced end of thinking, one of version 2 alone, a new, an empty."""
    prompt = make_prompt(rng, model)
    members = [
        rollout(prompt, 1.0, [(2, 2, True), (2, 3, True), (1, 3, False), (3, 4, True)]),
        rollout(prompt, 1.0, [(3, 2, True)]),
        rollout(prompt, 0.0, [(2, 4, True)]),
        rollout(prompt, 0.0, [], finish="abort"),
    ]
    return make_groups([prompt], [members])[0]


def kept(samples):
    return {len(s.token_ids): s.trainable.astype(int).tolist() for s in samples}


def test_inserted_and_old_tokens_are_masked(group):
    config = RLConfig(steps=1, loss=LossConfig(algorithm="dr_grpo"))
    notes = [[NOTHING] * 4]
    all_versions = samples_of([group], config, notes)
    assert kept(all_versions) == {8: [1, 1, 1, 1, 0, 1, 1, 1], 3: [1, 1, 1], 2: [1, 1]}
    assert [s.advantage for s in all_versions] == [0.5, 0.5, -0.5], "all four are in the baseline"
    assert [s.mask is None for s in all_versions] == [False, True, True]
    newer = samples_of([group], config, notes, min_version=3)
    assert kept(newer) == {8: [0, 0, 1, 1, 0, 1, 1, 1], 2: [1, 1]}, "one of version 2 alone has nothing to teach"
    assert [s.advantage for s in newer] == [0.5, -0.5]
    assert newer[0].old_logprobs.tolist() == [0, 0, -3, -4, 0, -6, -7, -8]
    assert sample_metrics(newer) == {"masked_share": pytest.approx(1 - 7 / 10)}
    assert sample_metrics(newer[1:]) == {}


def test_an_abort_is_an_answer_that_was_cut_off(group):
    assert group_metrics([group], RLConfig(steps=1))["truncated_share"] == 0.25
    aborted = [replace(m.rollout.completion, finish_reason="abort") for m in group.rollouts]
    members = tuple(
        ScoredRollout(rollout=replace(m.rollout, completion=c), score=m.score)
        for m, c in zip(group.rollouts, aborted, strict=True)
    )
    config = RLConfig(steps=1, loss=LossConfig(algorithm="grpo"), mask_truncated=True)
    assert samples_of([replace(group, rollouts=members)], config, [[NOTHING] * 4]) == []


@pytest.mark.parametrize("algorithm", [*ALGORITHMS, "reinforce_pp", "ppo"])
def test_every_algorithm_survives_empty_and_masked_answers(group, algorithm):
    """From the learner's annotations to an update with finite numbers."""
    model = build_model()
    loss = LossConfig(algorithm=algorithm)
    learner = make_learner(model, loss=loss)
    config = RLConfig(steps=1, loss=loss)
    notes = learner.model_outputs([group])
    samples = samples_of([group], config, notes, min_version=3)
    assert [len(s.token_ids) for s in samples] == [8, 2]
    assert samples[0].trainable.tolist() == [False, False, True, True, False, True, True, True]
    metrics = learner.update(samples) | sample_metrics(samples)
    assert metrics["skipped_updates"] == 0
    assert np.isfinite(list(metrics.values())).all(), metrics


def test_the_critic_says_the_same_before_the_update_and_in_it(group):
    learner = make_learner(build_model(), loss=LossConfig(algorithm="ppo"))
    critic = learner.critic
    torch.nn.init.normal_(critic.head.outer.weight)
    notes = learner.model_outputs([group], 3)
    config = RLConfig(steps=1, loss=LossConfig(algorithm="ppo"))
    samples = samples_of([group], config, notes, min_version=3)
    assert not samples[0].trainable.all()
    images = collect_images(samples, learner.model.config)
    micro = make_micro_batch(samples, images)
    with torch.no_grad():
        values = critic.values(micro, micro.old_logprobs, torch.empty(0), critic.encode(images))
    assert micro.columns["old_values"].std() > 0.1
    assert values.tolist() == pytest.approx(micro.columns["old_values"].tolist(), abs=1e-5)


def test_the_loss_that_ppo_reports_is_the_policys_alone(group):
    """The value loss has a metric of its own, and its coefficient does not move the policy's."""
    reported = []
    for coef in (0.1, 10.0):
        loss = LossConfig(algorithm="ppo", critic=CriticConfig(backbone="shared", value_coef=coef))
        learner = make_learner(build_model(), loss=loss)
        notes = learner.model_outputs([group], 3)
        samples = samples_of([group], RLConfig(steps=1, loss=loss), notes, min_version=3)
        reported.append(learner.update(samples))
    assert reported[0]["value_loss"] == pytest.approx(reported[1]["value_loss"])
    assert reported[0]["value_loss"] > 1e-3
    assert reported[0]["loss"] == pytest.approx(reported[1]["loss"], abs=1e-6)


def test_advantages_pass_over_masked_tokens(rng, model):
    """PPO with a KL in the reward: advantages and returns of the kept tokens, as if the others were not there."""
    prompt = make_prompt(rng, model)
    kl = KLConfig(coef=0.5, placement="reward", estimator="k1")
    config = RLConfig(steps=1, loss=LossConfig(algorithm="ppo", kl=kl))

    def sample(segments, values, log_ratios):
        member = rollout(prompt, 1.0, segments)
        reference = member.rollout.completion.policy_logprobs - np.array(log_ratios, np.float32)
        note = ModelOutputs(values=np.array(values, np.float32), reference_logprobs=reference)
        [found] = samples_of(make_groups([prompt], [[member]]), config, [[note]])
        return found

    plain = sample([(4, 1, True)], [0.1, 0.4, 0.2, 0.8], [0.5, -0.25, 1.0, 0.5])
    gap = [(2, 1, True), (3, 1, False), (2, 1, True)]
    passed = sample(gap, [0.1, 0.4, 9, 9, 9, 0.2, 0.8], [0.5, -0.25, 99, 99, 99, 1.0, 0.5])
    assert plain.columns["returns"][0] == pytest.approx(1 - 0.5 * 1.75), "gamma = lambda = 1: what is still to come"
    for name in ("token_advantages", "old_values", "returns"):
        assert passed.columns[name][passed.trainable].tolist() == plain.columns[name].tolist()
        assert (passed.columns[name][~passed.trainable] == 0).all()
    assert passed.advantage == plain.advantage
    names = ("explained_variance", "kl_reference")
    assert [sample_metrics([passed])[n] for n in names] == [sample_metrics([plain])[n] for n in names]
