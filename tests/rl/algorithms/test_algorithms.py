"""Every algorithm through the learner: real steps of a tiny model, from scored groups to weights."""

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, build_model, make_learner, make_prompt, make_scored, new_id

from configs.algorithms import ALGORITHMS, KLConfig, LossConfig
from configs.correction import CorrectionConfig
from configs.critic import CriticConfig
from configs.optimizer import OptimizerConfig
from configs.rl import RLConfig, SamplingConfig
from rewards.types import Score, Verdict, VerdictKind
from rl.learner.critic import surprises
from rl.safe_load import load_state
from rl.samples import make_samples, sample_metrics
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.sources.group_building import groups_with_signal, make_groups
from rollouts.types import Group, Request, Rollout, ScoredRollout

SHARED, OWN = CriticConfig(backbone="shared"), CriticConfig(backbone="own")
RATE = OptimizerConfig(learning_rate=1e-3, grad_clip=1e9)
VARIANTS = [
    *(LossConfig(algorithm=name) for name in ALGORITHMS),
    LossConfig(algorithm="ppo", critic=SHARED, kl=KLConfig(coef=0.1, placement="reward"), reference="ema"),
    LossConfig(algorithm="kimi_k15", reference="frozen", reset_optimizer=True),
    LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), reference="ema", reference_decay=0.5),
    LossConfig(algorithm="dapo", correction=CorrectionConfig(mode="mask"), entropy_bonus=0.01, sft_coef=0.1),
    LossConfig(algorithm="gspo", correction=CorrectionConfig(level="sequence"), kl=KLConfig(coef=0.1)),
]


def name_of(loss):
    extras = [key for key in ("reference", "correction", "critic", "kl") if getattr(loss, key)]
    return "-".join([loss.algorithm, *extras])


@pytest.fixture
def groups(rng, model):
    """What an engine drew for three prompts, one with an image; an answer earns its share of even tokens."""
    engine = EngineDriver(TransformersEngine(copy.deepcopy(model), stop_ids=[0], barred_ids=barred_ids(model)))
    prompts = [make_prompt(rng, model, text=t, grids=g) for t, g in ((5, ()), (3, ((2, 4),)), (6, ()))]
    requests = [Request(prompt=p, n=4, seed=i) for i, p in enumerate(prompts)]
    drawn = engine.generate(requests, SamplingConfig(max_new_tokens=12, temperature=0.9, top_p=0.9))
    return make_groups(prompts, [[scored(p, c) for c in cs] for p, cs in zip(prompts, drawn, strict=True)])


def scored(prompt, completion):
    reward = float(np.mean(completion.token_ids % 2 == 0))
    kind = VerdictKind.CORRECT if reward > 0.5 else VerdictKind.WRONG
    score = Score(verdict=Verdict(kind=kind, score=reward), reward=reward, parts={})
    return ScoredRollout(
        rollout=Rollout(prompt=prompt, index=int(new_id()), completion=completion, text=""), score=score
    )


def samples_of(learner, groups, loss):
    config = RLConfig(steps=10, loss=loss, sampling=SamplingConfig(max_new_tokens=16))
    kept = groups_with_signal(groups, config)
    return make_samples(kept, config, learner.model_outputs(kept))


def first_gradient(groups, loss, **options):
    model = build_model()
    learner = make_learner(model, loss=loss, optimizer=RATE, **options)
    seen = {}
    learner.optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    )
    metrics = learner.update(samples_of(learner, groups, loss))
    return seen, metrics


@pytest.mark.parametrize("loss", VARIANTS, ids=name_of)
def test_one_gradient_however_the_step_is_cut(groups, loss):
    whole, metrics = first_gradient(groups, loss, micro_batch_tokens=10_000)
    assert metrics["grad_norm"] > 0
    assert np.isfinite(list(metrics.values())).all()
    for budget in (1, 40):
        cut, same = first_gradient(groups, loss, micro_batch_tokens=budget)
        difference = sum(float((cut[n] - g).square().sum()) for n, g in whole.items()) ** 0.5
        assert difference < 2e-5 * metrics["grad_norm"], budget
        assert same == pytest.approx(metrics, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("loss", VARIANTS, ids=name_of)
def test_steps_make_what_pays_likelier(groups, loss):
    """After a few updates on the same answers, those above their group's mean gain on those below it."""
    learner = make_learner(build_model(), loss=loss, optimizer=OptimizerConfig(learning_rate=1e-3))
    sign = np.concatenate([np.sign(np.array(g.rewards) - np.mean(g.rewards)) for g in groups])

    def score():
        probe = make_learner(learner.model, minibatches=2)
        notes = [n for notes in probe.model_outputs(groups) for n in notes]
        return np.array([n.policy_logprobs.sum() for n in notes])

    before = score()
    for _ in range(3):
        learner.update(samples_of(learner, groups, loss))
    gained = score() - before
    assert gained[sign > 0].mean() > gained[sign < 0].mean()


@pytest.mark.parametrize("loss", VARIANTS, ids=name_of)
def test_a_restored_learner_goes_on_bit_for_bit(groups, loss):
    """With its critic and a moving reference, which a fresh learner would have taken from the wrong policy.

    A frozen reference is in no checkpoint: it is the model that entered the stage, from which both sides are built.
    """
    options = {"loss": loss, "minibatches": 2, "micro_batch_tokens": 60}
    learner = make_learner(build_model(), **options)
    learner.update(samples_of(learner, groups, loss))
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    buffer.seek(0)
    frozen = learner.reference is not None and loss.resolved().reference == "frozen"
    restored = make_learner(build_model() if frozen else build_model(seed=5), **options)
    restored.load_state_dict(load_state(buffer))
    for _ in range(2):
        one, two = (samples_of(side, groups, loss) for side in (learner, restored))
        assert sample_metrics(one) == pytest.approx(sample_metrics(two), rel=0, nan_ok=True)
        assert learner.update(one) == restored.update(two)
    theirs = restored.model.state_dict()
    assert not [n for n, t in learner.model.state_dict().items() if not torch.equal(t, theirs[n])]


def test_nothing_is_asked_where_nothing_is_needed(groups):
    learner = make_learner(build_model(), loss=LossConfig(algorithm="grpo"))
    learner.model.forward = learner.model.model.forward = None  # a pass through either would fail
    notes = [n for notes in learner.model_outputs(groups) for n in notes]
    assert len(notes) == 12
    assert all(n.policy_logprobs is n.reference_logprobs is n.values is None for n in notes)
    assert learner.reference is None
    assert learner.critic is None


def test_annotations_are_of_the_policies_they_name(groups, model):
    """The engine ran the same policy at the same temperature, so its own log-probs are the measure, in order."""
    loss = LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), correction=CorrectionConfig())
    learner = make_learner(build_model(), loss=loss, micro_batch_tokens=30, epochs=2)

    def gaps(field):
        return [
            np.abs(getattr(n, field) - m.rollout.completion.policy_logprobs).max()
            for g, notes in zip(groups, learner.model_outputs(groups), strict=True)
            for m, n in zip(g.rollouts, notes, strict=True)
        ]

    assert max(gaps("policy_logprobs")) < 1e-4
    assert max(gaps("reference_logprobs")) < 1e-4
    learner.update(samples_of(learner, groups, loss))
    assert max(gaps("policy_logprobs")) > 1e-2, "the policy has moved"
    assert max(gaps("reference_logprobs")) < 1e-4, "its reference has not"


@pytest.mark.parametrize(("reference", "share"), [("frozen", 0.0), ("ema", 0.75)])
def test_the_reference_stays_or_follows(groups, reference, share):
    loss = LossConfig(algorithm="kimi_k15", reference=reference, reference_decay=0.25 if reference == "ema" else 0.99)
    learner = make_learner(build_model(), loss=loss)
    start = copy.deepcopy(dict(learner.model.named_parameters()))
    learner.update(samples_of(learner, groups, loss))
    policy, kept = dict(learner.model.named_parameters()), dict(learner.reference.model.named_parameters())
    for name, first in start.items():
        expected = first + share * (policy[name] - first)
        assert torch.allclose(kept[name], expected, atol=1e-6), name


def test_kl_to_a_frozen_reference_holds_the_policy_back(groups):
    """A heavy KL term keeps the policy nearer to where it started."""
    distances = []
    for coef in (1e-9, 20.0):
        loss = LossConfig(algorithm="grpo", kl=KLConfig(coef=coef, estimator="k2"), correction=CorrectionConfig())
        learner = make_learner(build_model(), loss=loss, epochs=4)
        for _ in range(2):
            learner.update(samples_of(learner, groups, loss))
        distances.append(sample_metrics(samples_of(learner, groups, loss))["kl_reference"])
    assert 0 < distances[1] < 0.3 * distances[0]


def test_the_mismatch_correction_takes_the_learners_logprobs_as_old(groups):
    """The engine drew under top-p: its sampler's log-probs are above the policy's, so the weights are below 1."""
    loss = LossConfig(algorithm="grpo", correction=CorrectionConfig())
    learner = make_learner(build_model(), loss=loss)
    samples = samples_of(learner, groups, loss)
    ratios = np.exp(np.concatenate([s.old_logprobs - s.columns["sampler_logprobs"] for s in samples]))
    assert 0.85 < ratios.mean() < 1
    metrics = learner.update(samples)
    assert metrics["correction_mean"] == pytest.approx(ratios.clip(0, 2).mean(), rel=1e-4)
    assert metrics["logprob_gap_max"] < 1e-5, "the ratio starts at exactly 1"


@pytest.mark.parametrize(
    ("backbone", "rate", "least"), [("shared", 2e-3, 0.4), ("own", 2e-3, 0.5), ("own", None, 0.2), ("own", 1e-2, 0.5)]
)
def test_the_critic_learns_what_answers_earn(rng, backbone, rate, least):
    """A reward that the first token decides: after that token, on prompts never seen, V knows the reward.

    The default rate is safe beside a toy policy's high one, and so is the highest that is allowed.
    """
    model = build_model()
    loss = LossConfig(algorithm="ppo", critic=CriticConfig(backbone=backbone, value_learning_rate=rate))
    learner = make_learner(model, loss=loss, optimizer=OptimizerConfig(learning_rate=5e-3), minibatches=4)

    def draw():
        prompts = [make_prompt(rng, model, text=4) for _ in range(16)]
        return make_groups(prompts, [[answer(p, i) for i in range(4)] for p in prompts])

    def answer(prompt, index):
        rollout = make_scored(prompt, float(index % 2), length=6)
        tokens = np.concatenate([[3 + index % 2], rng.integers(5, 40, 5)])
        completion = rollout.rollout.completion
        changed = type(completion)(
            token_ids=tokens,
            policy_logprobs=completion.policy_logprobs,
            sampler_logprobs=completion.sampler_logprobs,
            finish_reason="stop",
            segments=completion.segments,
        )
        return ScoredRollout(
            rollout=Rollout(prompt=prompt, index=int(new_id()), completion=changed, text=""),
            score=rollout.score,
        )

    known = []
    for _ in range(16):
        samples = samples_of(learner, draw(), loss)
        known.append(sample_metrics(samples)["explained_variance"])
        learner.update(samples)
    assert known[0] == pytest.approx(0, abs=0.01), "the head starts at 0"
    assert np.mean(known[-3:]) > least, known
    assert min(known) > -0.5, "no rate that is allowed makes a critic worse than none for long"


@pytest.mark.parametrize("critic", [SHARED, OWN], ids=lambda critic: critic.backbone)
def test_only_a_shared_critic_moves_the_policys_backbone(groups, critic):
    """Where no answer has an advantage, all that reaches the policy's layers is a shared critic's gradient."""
    loss = LossConfig(algorithm="ppo", critic=critic)
    learner = make_learner(build_model(), loss=loss)
    torch.nn.init.constant_(learner.critic.head.outer.weight, 0.1)
    flat = [
        replace(s, columns={**s.columns, "token_advantages": np.zeros(len(s.token_ids), np.float32)})
        for s in samples_of(learner, groups, loss)
    ]
    metrics = learner.update(flat)
    assert metrics["critic_grad_norm"] > 0
    assert (metrics["grad_norm"] > 1e-3) == (critic is SHARED)


def test_surprises_by_hand():
    """Two answers, of three tokens and one: nothing is known at the first token, then the last, the sum, the least."""
    found = surprises(torch.tensor([-2.0, -1.0, -9.0, -4.0]), torch.tensor([3, 1])).expm1()
    expected = [[0.0, 0.0, 0.0], [2.0, 2.0, 2.0], [1.0, 3.0, 2.0], [0.0, 0.0, 0.0]]
    assert torch.allclose(found, torch.tensor(expected), atol=1e-5)


def test_a_value_knows_nothing_of_its_own_token_and_those_after(groups):
    """What is written later changes no value: the value stays a baseline."""
    loss = LossConfig(algorithm="ppo")
    learner = make_learner(build_model(), loss=loss)
    torch.nn.init.normal_(learner.critic.head.outer.weight)

    def values(cut):
        member = max((m for g in groups for m in g.rollouts), key=lambda m: len(m.rollout.completion.token_ids))
        c = member.rollout.completion
        ids, logprobs = c.token_ids.copy(), c.policy_logprobs.copy()
        ids[cut:], logprobs[cut:] = 3, -5.0
        changed = replace(c, token_ids=ids, policy_logprobs=logprobs)
        member = replace(member, rollout=replace(member.rollout, completion=changed))
        return learner.model_outputs([Group(prompt=member.rollout.prompt, rollouts=(member,), dropped=0)])[0][0].values

    whole, other = values(10**6), values(2)
    assert whole[:3] == pytest.approx(other[:3], abs=1e-5)
    assert np.abs(whole[3:] - other[3:]).max() > 1e-2


@pytest.mark.parametrize("critic", [SHARED, OWN], ids=lambda critic: critic.backbone)
def test_the_critic_says_the_same_before_an_update_and_in_it(groups, critic):
    """The engine's log-probs are off here. With a correction the critic reads the learner's own, both times."""

    def off(member):
        completion = member.rollout.completion
        wrong = replace(completion, policy_logprobs=completion.policy_logprobs - 1.0)
        return replace(member, rollout=replace(member.rollout, completion=wrong))

    groups = [replace(g, rollouts=tuple(off(m) for m in g.rollouts)) for g in groups]
    loss = LossConfig(algorithm="ppo", critic=critic, correction=CorrectionConfig())
    learner = make_learner(build_model(), loss=loss)
    torch.nn.init.normal_(learner.critic.head.outer.weight)
    samples = samples_of(learner, groups, loss)
    before = np.sort(np.concatenate([s.columns["old_values"] for s in samples]))
    seen, values = [], learner.critic.values
    learner.critic.values = lambda *args: seen.append(values(*args)) or seen[-1]
    learner.update(samples)
    assert np.sort(torch.cat(seen).detach().numpy()) == pytest.approx(before, abs=1e-4)


def test_a_moving_reference_moves_in_bfloat16_too():
    """A hundredth of the way is below bfloat16's resolution wherever the two are near; a restored one goes on."""
    loss = LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), reference="ema", reference_decay=0.99)
    learner = make_learner(build_model(dtype=torch.bfloat16), loss=loss)
    name, far = "language_model.layers.0.self_attn.o_proj.weight", 1.05
    policy, mean = (m.model.get_parameter(name) for m in (learner.model, learner.reference.model))
    start = mean.detach().float().clone()
    with torch.no_grad():
        policy.mul_(far)
    for _ in range(50):
        learner.reference.follow(learner.model)
    restored = make_learner(build_model(seed=4, dtype=torch.bfloat16), loss=loss)
    restored.load_state_dict(copy.deepcopy(learner.state_dict()))
    for one in (learner, restored):
        for _ in range(50):
            one.reference.follow(one.model)
        moved = one.reference.model.model.get_parameter(name).float() / start - 1
        assert float(moved[start != 0].median()) == pytest.approx(0.05 * (1 - 0.99**100), rel=0.15)
    again = restored.reference.model.model.get_parameter(name)
    assert torch.equal(again, mean)


@pytest.mark.parametrize("critic", [SHARED, OWN], ids=lambda critic: critic.backbone)
def test_the_policy_waits_while_its_critic_learns_alone(groups, critic):
    """No weight of the policy moves or decays; the critic's do; then both do. A restored learner goes on waiting.

    Meanwhile there is no norm that later gradients are held against.
    """
    loss = LossConfig(algorithm="ppo", critic=replace(critic, pretrain_steps=2))
    decay = {"optimizer": replace(RATE, weight_decay=0.1), "minibatches": 2}
    learner = make_learner(build_model(), loss=loss, **decay)

    def moved(by):
        parts = {"policy": by.model, "head": by.critic.head}
        before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}
        by.update(samples_of(by, groups, loss))
        return {
            name
            for name, part in parts.items()
            if any(not torch.equal(a, b) for a, b in zip(before[name], part.parameters(), strict=True))
        }

    gradients = []
    learner.model.lm_head.weight.register_hook(gradients.append)
    assert moved(learner) == {"head"}
    assert not gradients, "no backward pass goes through the policy"
    assert learner.state_dict()["guard"]["accepted"] == []
    restored = make_learner(build_model(seed=5), loss=loss, **decay)
    restored.load_state_dict(copy.deepcopy(learner.state_dict()))
    assert [moved(restored), moved(restored)] == [{"head"}, {"policy", "head"}]


def test_the_policys_schedule_starts_when_it_does(groups):
    """Six steps, of which the policy waits two: its rate is whole at the third, and a quarter is left at the last."""
    rate = OptimizerConfig(learning_rate=1e-3, schedule="linear", final_fraction=0.0)
    loss = LossConfig(algorithm="ppo", critic=replace(OWN, pretrain_steps=2))
    learner = make_learner(build_model(), loss=loss, optimizer=rate, total_steps=6)
    found = [learner.update(samples_of(learner, groups, loss))["learning_rate"] for _ in range(6)]
    assert found[2:] == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


def test_the_critics_rates_fall_as_the_policys_do(groups):
    """Ten updates of warm-up, then the recipe's schedule: linear from 1 to 0.2 over the other twenty of thirty."""
    rate = OptimizerConfig(learning_rate=1e-3, schedule="linear", final_fraction=0.2)
    loss = LossConfig(algorithm="ppo", critic=replace(OWN, value_learning_rate=1e-4))
    learner = make_learner(build_model(), loss=loss, optimizer=rate, total_steps=30)
    head, backbone = [], []
    for _ in range(31):
        found = learner.critic.schedule.get_last_lr()
        head.append(found[0])
        backbone.append(found[1])
        learner.update(samples_of(learner, groups, loss))
    assert head == pytest.approx([10 * r for r in backbone]), "the head learns ten times as fast"
    assert backbone[1] < backbone[5] < backbone[9] < 1e-4
    assert [backbone[11], backbone[21], backbone[-1]] == pytest.approx([1e-4, 0.6e-4, 0.24e-4], rel=1e-3)


@pytest.mark.parametrize("critic", [SHARED, OWN], ids=lambda critic: critic.backbone)
def test_the_critic_starts_from_the_mean_return(groups, critic):
    """After the first update every value is the mean over tokens of the returns, however the step is cut."""
    loss = LossConfig(algorithm="ppo", critic=critic)
    for budget in (40, 10_000):
        learner = make_learner(build_model(), loss=loss, micro_batch_tokens=budget)
        samples = samples_of(learner, groups, loss)
        learner.update(samples)
        mean = np.concatenate([s.columns["returns"] for s in samples]).mean()
        values = np.concatenate([n.values for notes in learner.model_outputs(groups) for n in notes])
        assert values == pytest.approx(np.full(len(values), mean), rel=1e-4)
