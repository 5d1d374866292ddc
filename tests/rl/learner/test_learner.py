"""The learner: one gradient however the step is cut, images once, exact restore, and agreement with the engine."""

import copy
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, build_model, make_learner, make_prompt, make_samples, new_id

from configs.algorithms import LossConfig
from configs.errors import UserError
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.rl import SamplingConfig
from rl.algorithms.policy_loss import LossInputs, policy_loss
from rl.learner.batch import collect_images, make_micro_batch, split_by_tokens, split_minibatches
from rl.learner.forward import encode, response_hidden
from rl.learner.lora import prepare_training
from rl.safe_load import load_state
from rl.types import Sample, StepBatch
from rollouts.engines.driver import EngineDriver
from rollouts.engines.sampling import barred_token_mask, policy_logprobs
from rollouts.engines.transformers import TransformersEngine
from rollouts.types import Request

PPO_COLUMNS = ("token_advantages", "old_values", "returns")
LOSSES = [LossConfig(algorithm="grpo"), LossConfig(algorithm="kimi_k15", tau=0.2)]


def gradient(samples, *, loss=LOSSES[0], model=None, **options):
    """The gradient that an update after the first hands to the optimizer, by parameter name.

    Its denominators are those of the samples.
    """
    model = model or build_model()
    learner = make_learner(model, loss=loss, **options)
    seen = {}
    learner.optimizer.register_step_pre_hook(
        lambda *_: seen.update({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    )
    metrics = learner._optimizer_step(StepBatch(samples=tuple(samples)), number=2)
    return seen, metrics


def logprobs(learner, samples):
    """Log-probs and entropies of the responses under the learner's policy."""
    images = collect_images(samples, learner.model.config)
    micro = make_micro_batch(samples, images)
    hidden = response_hidden(learner.model, micro, encode(learner.model, images))
    return learner._head(learner.model, hidden, micro.targets)


def distance(a, b):
    """Relative norm of the difference of two gradients."""
    assert a.keys() == b.keys()
    difference = sum(float((a[n].double() - b[n].double()).square().sum()) for n in a)
    return (difference / sum(float(b[n].double().square().sum()) for n in b)) ** 0.5


def plain_gradient(samples, loss, *, temperature=0.9):
    """Sample by sample through the model's own forward, nothing shared: the loss as the paper states it."""
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
        x = LossInputs(
            logprobs=new,
            old_logprobs=torch.from_numpy(sample.old_logprobs),
            advantages=torch.tensor([sample.advantage]),
            sequence_ids=torch.zeros(len(new), dtype=torch.long),
            lengths=torch.tensor([len(new)]),
            step_sequences=len(samples),
            step_tokens=sum(len(s.token_ids) for s in samples),
            max_tokens=16,
        )
        total = total + policy_loss(x, loss).loss
    total.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, float(total.detach())


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.algorithm)
def test_the_gradient_is_that_of_one_sample_after_another(rng, model, loss):
    """Also: features of shared images, with their gradient, are those of encoding them for each sample anew."""
    samples = make_samples(rng, model)
    expected, value = plain_gradient(samples, loss)
    assert any("vision_tower" in name for name in expected)
    seen, metrics = gradient(samples, loss=loss, micro_batch_tokens=50)
    assert distance(seen, expected) < 1e-5
    assert metrics["loss"] == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.algorithm)
def test_one_gradient_however_the_step_is_cut(rng, model, loss):
    samples = make_samples(rng, model)
    whole, metrics = gradient(samples, loss=loss, micro_batch_tokens=10_000)
    for budget in (1, 30, 64, 200):
        cut, same = gradient(samples, loss=loss, micro_batch_tokens=budget)
        assert distance(cut, whole) < 1e-5, budget
        assert same == pytest.approx(metrics, rel=1e-4, abs=1e-6), budget
    for order in (samples[::-1], [samples[i] for i in rng.permutation(len(samples))]):
        assert distance(gradient(order, loss=loss, micro_batch_tokens=64)[0], whole) < 1e-5


def test_padding_changes_nothing(rng, model):
    """Next to a much longer sample that carries no advantage, and so no gradient."""
    samples = make_samples(rng, model)
    loss = LOSSES[0]
    alone, _ = gradient(samples, loss=loss, micro_batch_tokens=10_000)
    long = Sample(
        id=new_id(),
        prompt=make_prompt(rng, model, text=150),
        token_ids=rng.integers(0, 40, 30),
        old_logprobs=np.full(30, -3.0, np.float32),
        advantage=0.0,
    )
    padded, _ = gradient([*samples, long], loss=loss, micro_batch_tokens=100_000)
    share = len(samples) / (len(samples) + 1)
    assert distance(padded, {name: share * value for name, value in alone.items()}) < 1e-5


def test_images_pass_the_tower_once_an_optimizer_step(rng, model):
    samples = make_samples(rng, model, per_prompt=4)
    patches = []
    model.model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: patches.append(len(kwargs.get("pixel_values", args[0] if args else None))),
        with_kwargs=True,
    )
    make_learner(model, micro_batch_tokens=40, epochs=2).update(samples)
    prompts = {id(s.prompt): s.prompt for s in samples}.values()
    assert patches == [sum(len(p.pixel_values) for p in prompts)] * 2


@pytest.mark.parametrize(("freeze", "passes"), [((), 2), (("vision_tower", "mm_projector"), 1)])
def test_images_above_the_budget_pass_in_parts_and_keep_no_activations(rng, freeze, passes):
    """4, 8, 8 and 16 patches, where 12 may pass together: once for the features, once for their gradient."""
    model, patches, kept = build_model(), [], []
    prepare_training(model, ModelConfig(freeze=freeze), base="")
    samples = make_samples(rng, model)
    whole, _ = gradient(samples, model=copy.deepcopy(model))
    model.model.vision_tower.register_forward_pre_hook(
        lambda _, args, kwargs: patches.append(len(kwargs.get("pixel_values", args[0] if args else None))),
        with_kwargs=True,
    )
    model.model.vision_tower.register_forward_hook(lambda *_: kept.append(torch.is_grad_enabled()))
    cut, _ = gradient(samples, model=model, micro_batch_tokens=12)
    assert distance(cut, whole) < 1e-5
    assert patches == [12, 8, 16] * passes
    assert kept == [False] * 3 + [True] * 3 * (passes - 1)


def test_a_step_of_text_alone_learns_and_leaves_the_tower(rng, model):
    prompt = make_prompt(rng, model, text=6)
    sample = Sample(
        id=new_id(), prompt=prompt, token_ids=np.array([1, 2]), old_logprobs=np.zeros(2, np.float32), advantage=1.0
    )
    before = copy.deepcopy(model.state_dict())
    make_learner(model).update([sample])
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    assert "lm_head.weight" in moved
    assert not [n for n in moved if "vision_tower" in n or "mm_projector" in n]


def test_logprobs_are_the_engines(rng, model):
    """The two sides of the ratio, for sampled answers of unlike length with and without images."""
    prompts = [make_prompt(rng, model, text=t, grids=g) for t, g in ((5, ()), (3, ((2, 4),)), (9, ((4, 4), (2, 2))))]
    engine = EngineDriver(TransformersEngine(copy.deepcopy(model), stop_ids=[0, 1, 2], barred_ids=barred_ids(model)))
    requests = [Request(prompt=p, n=4, seed=i) for i, p in enumerate(prompts)]
    groups = engine.generate(requests, SamplingConfig(max_new_tokens=24, temperature=0.7, top_k=12))
    samples = [
        Sample(id=new_id(), prompt=p, token_ids=c.token_ids, old_logprobs=c.policy_logprobs, advantage=1.0)
        for p, group in zip(prompts, groups, strict=True)
        for c in group
    ]
    assert len({len(s.token_ids) for s in samples}) > 3
    metrics = make_learner(model, temperature=0.7, micro_batch_tokens=80).update(samples)
    assert metrics["logprob_gap_max"] < 1e-4
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-8)
    assert metrics["clip_fraction"] == 0


def test_metrics_by_hand(rng, model):
    """Old log-probs 0.5 below the new ones: k3 = e^0.5 - 1 - 0.5 a token, ratio e^0.5 > 1.2 clipped where A > 0."""
    prompt = make_prompt(rng, model, text=5)
    responses = [rng.integers(0, 40, 3), rng.integers(0, 40, 5)]
    probe = [
        Sample(id=new_id(), prompt=prompt, token_ids=t, old_logprobs=np.zeros(len(t), np.float32), advantage=0.0)
        for t in responses
    ]
    learner = make_learner(model)
    new, entropy = logprobs(learner, probe)
    new = new.detach().numpy()
    samples = [
        Sample(id=new_id(), prompt=prompt, token_ids=t, old_logprobs=old - 0.5, advantage=a)
        for t, old, a in zip(responses, (new[:3], new[3:]), (1.0, -1.0), strict=True)
    ]
    metrics = learner._optimizer_step(StepBatch(samples=tuple(samples)), number=2)
    assert metrics["approx_kl"] == pytest.approx(np.exp(0.5) - 1.5, rel=1e-4)
    assert metrics["logprob_gap_max"] == pytest.approx(0.5, rel=1e-4)
    assert metrics["clip_fraction"] == pytest.approx(3 / 8)
    assert metrics["entropy"] == pytest.approx(float(entropy.mean()), rel=1e-5)
    assert metrics["loss"] == pytest.approx(-(1.2 - np.exp(0.5)) / 2, rel=1e-4)
    assert metrics["learning_rate"] == pytest.approx(1e-3)


def test_the_gradient_is_clipped_and_its_norm_told(rng, model):
    samples = make_samples(rng, model)
    free, metrics = gradient(samples)
    norm = sum(float(g.square().sum()) for g in free.values()) ** 0.5
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
    clipped, metrics = gradient(samples, optimizer=OptimizerConfig(learning_rate=1e-3, grad_clip=norm / 10))
    assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5), "the norm before clipping"
    assert sum(float(g.square().sum()) for g in clipped.values()) ** 0.5 == pytest.approx(norm / 10, rel=1e-4)


def test_an_update_makes_good_answers_likelier(rng, model):
    prompt = make_prompt(rng, model, text=5, grids=((2, 2),))
    good, bad = rng.integers(0, 40, 4), rng.integers(0, 40, 4)
    learner = make_learner(model, optimizer=OptimizerConfig(learning_rate=1e-3))

    def score(tokens):
        s = Sample(id=new_id(), prompt=prompt, token_ids=tokens, old_logprobs=np.zeros(4, np.float32), advantage=0.0)
        with torch.no_grad():
            return logprobs(learner, [s])[0].numpy()

    before = score(good).sum(), score(bad).sum()
    learner.update(
        [
            Sample(id=new_id(), prompt=prompt, token_ids=tokens, old_logprobs=score(tokens), advantage=a)
            for tokens, a in ((good, 1.0), (bad, -1.0))
        ]
    )
    assert score(good).sum() > before[0]
    assert score(bad).sum() < before[1]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_minibatches_keep_groups_together(rng, model, count):
    samples = make_samples(rng, model)
    parts = split_minibatches(samples, count, np.random.default_rng(0))
    assert sorted(id(s) for part in parts for s in part) == sorted(map(id, samples))
    assert len(parts) == min(count, 4), "four prompts"
    prompts = [{id(s.prompt) for s in part} for part in parts]
    assert sum(len(p) for p in prompts) == 4, "a prompt in two minibatches"
    if count == 1:
        assert [id(s) for s in parts[0]] == [id(s) for s in samples]


def test_epochs_and_minibatches_are_optimizer_steps(rng, model):
    learner = make_learner(model, epochs=2, minibatches=2)
    learner.update(make_samples(rng, model))
    assert learner.state_dict()["schedule"]["last_epoch"] == 4
    assert learner.version == 1


def test_without_samples_nothing_is_trained(model):
    learner = make_learner(model)
    before = copy.deepcopy(learner.state_dict())
    assert learner.update([]) == {}
    after = learner.state_dict()
    assert (after.pop("version"), before.pop("version")) == (1, 0)
    assert not [n for n, t in after["model"].items() if not torch.equal(t, before["model"][n])]
    assert after["optimizer"]["state"] == before["optimizer"]["state"]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_learning_rates_fall_over_the_run_whatever_there_is_to_learn(rng, model, algorithm):
    """Of four minibatches a step two groups fill two, no group none, and four all. A restored learner does the same."""
    optimizer = OptimizerConfig(learning_rate=1e-3, schedule="linear")
    options = {"loss": LossConfig(algorithm=algorithm), "optimizer": optimizer, "minibatches": 4, "total_steps": 16}
    learner = make_learner(model, **options)
    samples = make_samples(rng, model)
    if algorithm == "ppo":
        zeros = {id(s): np.zeros(len(s.token_ids), np.float32) for s in samples}
        samples = [replace(s, columns=dict.fromkeys(PPO_COLUMNS, zeros[id(s)])) for s in samples]
    two = [s for s in samples if s.prompt in (samples[0].prompt, samples[-1].prompt)]
    rates, critics = [], []
    for step in (two, [], samples):
        learner.update(step)
        rates.append(learner.schedule.get_last_lr()[0])
        critics.append(learner.critic.schedule.last_epoch if algorithm == "ppo" else 4 * len(rates) - 1)
    assert rates == pytest.approx([0.75e-3, 0.5e-3, 0.25e-3])
    assert critics == [3, 7, 11]
    restored = make_learner(build_model(seed=3), **options)
    restored.load_state_dict(learner.state_dict())
    assert restored.update(samples)["learning_rate"] == pytest.approx(1e-3 * (4 + 3 + 2 + 1) / 4 / 16)


def test_a_first_update_that_is_refused_says_nothing_of_schedules(rng, model, recwarn):
    learner = make_learner(model)
    learner.update([replace(s, advantage=float("nan")) for s in make_samples(rng, model)])
    assert not [str(w.message) for w in recwarn if "lr_scheduler" in str(w.message)]


@pytest.mark.parametrize(
    "optimizer",
    [
        OptimizerConfig(learning_rate=1e-3, warmup_steps=3),
        OptimizerConfig(name="muon", learning_rate=1e-2, schedule="cosine"),
    ],
    ids=lambda config: config.name,
)
@pytest.mark.parametrize("reset", [False, True])
def test_a_restored_learner_goes_on_bit_for_bit(rng, optimizer, reset):
    loss = LossConfig(algorithm="kimi_k15", reset_optimizer=reset)
    options = {"loss": loss, "optimizer": optimizer, "minibatches": 2, "micro_batch_tokens": 60}
    model = build_model()
    steps = [make_samples(rng, model) for _ in range(3)]
    learner = make_learner(model, **options)
    learner.update(steps[0])
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    buffer.seek(0)
    restored = make_learner(build_model(seed=5), **options)
    restored.load_state_dict(load_state(buffer))
    for samples in steps[1:]:
        assert learner.update(samples) == restored.update(samples)
    assert learner.version == restored.version == 3
    theirs = restored.model.state_dict()
    assert not [n for n, t in learner.model.state_dict().items() if not torch.equal(t, theirs[n])]


def test_a_reset_optimizer_forgets_its_moments_and_keeps_its_schedule(rng, model):
    optimizer = OptimizerConfig(learning_rate=1e-3, schedule="linear")
    loss = LossConfig(algorithm="kimi_k15", reset_optimizer=True)
    learner = make_learner(model, loss=loss, optimizer=optimizer, minibatches=2)
    samples = make_samples(rng, model)
    rates = [learner.update(samples)["learning_rate"] for _ in range(3)]
    assert rates == pytest.approx([0.95e-3, 0.75e-3, 0.55e-3]), "means of two steps of a line over ten"
    states = learner.optimizer.state_dict()["state"].values()
    assert {float(s["step"]) for s in states} == {2.0}, "the two steps of the last iteration"


def test_weights_are_a_copy_under_the_models_names(rng, model):
    learner = make_learner(model)
    weights = learner.weights()
    assert weights.keys() == model.state_dict().keys()
    before = {name: np.array(value) for name, value in weights.items()}
    learner.update(make_samples(rng, model))
    assert all((weights[name] == before[name]).all() for name in weights), "published weights change under the engines"
    assert any((learner.weights()[name] != before[name]).any() for name in weights)


def test_weights_in_bfloat16_reach_an_engine(rng):
    model = build_model(dtype=torch.bfloat16)
    learner = make_learner(model)
    learner.update(make_samples(rng, model))
    engine = EngineDriver(
        TransformersEngine(build_model(seed=3, dtype=torch.bfloat16), stop_ids=[], barred_ids=barred_ids(model))
    )
    engine.load_weights(learner.weights(), version=learner.version)
    theirs = engine.engine.model.state_dict()
    assert not [n for n, t in model.state_dict().items() if not torch.equal(t, theirs[n])]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_gradient_that_is_not_finite_is_dropped(rng, algorithm):
    model = build_model()
    good = make_samples(rng, model)
    if algorithm == "ppo":
        good = [replace(s, columns={n: np.zeros(len(s.token_ids), np.float32) for n in PPO_COLUMNS}) for s in good]
    bad = [replace(s, advantage=float("nan"), columns={n: c * np.nan for n, c in s.columns.items()}) for s in good]
    learner = make_learner(model, loss=LossConfig(algorithm=algorithm))
    learner.update(good)
    before = copy.deepcopy(learner.state_dict())
    assert learner.update(bad)["skipped_updates"] == 1.0
    after = learner.state_dict()
    assert not [n for n, t in after["model"].items() if not torch.equal(t, before["model"][n])]
    for one, other in zip(after["optimizer"]["state"].values(), before["optimizer"]["state"].values(), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one), "no moment holds what was dropped"
    metrics = learner.update(good)
    assert metrics["skipped_updates"] == 0.0
    assert np.isfinite(list(metrics.values())).all()


def test_a_policy_without_finite_gradients_ends_the_run_also_after_a_restart(rng, model):
    bad = [replace(s, advantage=float("nan")) for s in make_samples(rng, model)]
    learner = make_learner(model)
    for _ in range(3):
        learner.update(bad)
    restored = make_learner(build_model(seed=4))
    restored.load_state_dict(learner.state_dict())
    restored.update(bad)
    with pytest.raises(UserError, match="not finite in 5 optimizer steps in a row"):
        restored.update(bad)


def test_checkpointed_layers_give_the_same_gradient(rng, model):
    """Packed, with images encoded once for several micro-batches."""
    samples = make_samples(rng, model, per_prompt=6)
    plain, metrics = gradient(samples, micro_batch_tokens=40)
    other = build_model()
    prepare_training(other, ModelConfig(gradient_checkpointing=True), base="tiny")
    forwards = []
    other.model.language_model.layers[1].mlp.gate.register_forward_hook(lambda *_: forwards.append(1))
    towers = []
    other.model.vision_tower.layers[0].attn.register_forward_hook(lambda *_: towers.append(1))
    again, same = gradient(samples, model=other, micro_batch_tokens=40)
    assert distance(again, plain) == 0
    assert same == metrics
    parts = len(split_by_tokens(samples, budget=40))
    assert parts > 2
    assert len(forwards) == 2 * parts, "each layer ran again for the backward pass"
    assert len(towers) == 2, "the tower once, and once again"
