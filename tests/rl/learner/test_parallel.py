"""What a learner gives its `Parallel`: dummy samples, which keep processes in step, must not change anything."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import barred_ids, build_model, make_samples

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from configs.optimizer import OptimizerConfig
from rl.learner.forward import EncodedImages
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.parallel import SINGLE_PROCESS, SingleProcess
from rl.types import SampledCompletion

OWN, SHARED = CriticConfig(backbone="own"), CriticConfig(backbone="shared")
LOSSES = {
    "grpo": LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1), entropy_bonus=0.01),
    "balance": LossConfig(algorithm="grpo", balance_coef=0.1),
    "own critic": LossConfig(algorithm="ppo", kl=KLConfig(coef=0.1), critic=OWN),
    "shared critic": LossConfig(algorithm="ppo", critic=SHARED),
    "critic alone": LossConfig(algorithm="ppo", critic=CriticConfig(backbone="own", pretrain_steps=1)),
}


class WithDummies(SingleProcess):
    """Runs two dummy micro-batches after the samples' own, as the rank with the fewest may have to."""

    def plan(self, samples, config, *, budget, dummy):
        parts, images = super().plan(samples, config, budget=budget, dummy=dummy)
        return [*parts, [dummy], [dummy]], images


def learner_with(parallel, loss, *, scale=1.0):
    model = build_model(dtype=torch.float64)
    model.set_experts_implementation("eager")  # grouped_mm knows no fp64
    with torch.no_grad():
        model.lm_head.weight.mul_(scale)
    config = LearnerConfig(
        loss=loss,
        optimizer=OptimizerConfig(learning_rate=1e-3, grad_clip=1e9),
        temperature=0.9,
        total_steps=10,
        max_new_tokens=16,
        micro_batch_tokens=40,
    )
    return Learner(model, config, barred_ids=barred_ids(model), parallel=parallel)


def with_columns(samples, loss):
    """The samples with made-up columns where the loss reads some."""
    rng = np.random.default_rng(1)
    names = ("token_advantages", "old_values", "returns") if loss.algorithm == "ppo" else ()
    names += ("reference_logprobs",) if loss.kl is not None else ()

    def column(sample):
        return rng.normal(size=len(sample.token_ids)).astype(np.float32)

    return [replace(sample, columns={name: column(sample) for name in names}) for sample in samples]


def update(parallel, loss):
    """(gradients of policy and critic by name, metrics) of one update."""
    learner = learner_with(parallel, loss)
    seen = {}

    def look(module, prefix):
        seen.update({f"{prefix}{n}": p.grad.clone() for n, p in module.named_parameters() if p.grad is not None})

    learner.optimizer.register_step_pre_hook(lambda *_: look(learner.model, ""))
    if learner.critic is not None:
        finish = learner.critic.finish_step

        def watched(**options):
            look(learner.critic.head, "head.")
            return finish(**options)

        learner.critic.finish_step = watched
    metrics = learner.update(with_columns(make_samples(np.random.default_rng(0), learner.model), loss))
    return seen, metrics


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_dummy_samples_add_nothing_to_an_update(loss):
    """In fp64, where a dummy of weight 1 would add a gradient of the samples' own size."""
    plain, metrics = update(SINGLE_PROCESS, loss)
    own, own_metrics = update(WithDummies(), loss)
    assert own.keys() == plain.keys()
    assert own.keys()
    assert all(torch.equal(own[name], plain[name]) for name in plain)
    assert own_metrics == metrics


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_dummy_sample_has_a_gradient_of_zero_for_all_that_the_samples_move(loss):
    """Ranks reduce the gradients of the same parameters; the dummy's token is as unlikely as a float32 allows."""
    seen, _ = update(SINGLE_PROCESS, loss)
    learner = learner_with(SINGLE_PROCESS, loss, scale=1e6)
    _, images = learner._plan(make_samples(np.random.default_rng(0), learner.model))
    dummy = learner._dummy
    if learner.critic is not None:
        learner.critic.begin_step(images)
    with torch.set_grad_enabled(not learner._policy_waits):
        encoded = EncodedImages(learner.model, images, learner.parallel)
    learner._no_loss([dummy], images, encoded).backward()
    encoded.backward()
    found = {n: p.grad for n, p in learner.model.named_parameters() if p.grad is not None}
    if learner.critic is not None:
        found |= {f"head.{n}": p.grad for n, p in learner.critic.head.named_parameters() if p.grad is not None}
    assert found.keys() == seen.keys()
    assert not any(gradient.any() for gradient in found.values())


def test_outputs_of_dummy_samples_are_left_out():
    loss = LOSSES["own critic"]
    plain, other = (learner_with(parallel, loss) for parallel in (SINGLE_PROCESS, WithDummies()))
    samples = make_samples(np.random.default_rng(0), plain.model)
    found, others = plain.own_outputs(samples), other.own_outputs(samples)
    assert list(found) == list(others)
    assert set(found) == {sample.id for sample in samples}
    for one, two in zip(found.values(), others.values(), strict=True):
        assert np.array_equal(one.reference_logprobs, two.reference_logprobs)
        assert np.array_equal(one.values, two.values)
    for one, two in zip(plain.logprobs(samples), other.logprobs(samples), strict=True):
        assert np.array_equal(one, two)


def test_a_dummy_sample_is_no_sample_to_train_on():
    learner = learner_with(SINGLE_PROCESS, LOSSES["grpo"])
    dummy = learner._dummy
    assert isinstance(dummy, SampledCompletion)
    assert not hasattr(dummy, "advantage")
    assert dummy.token_ids[0] not in barred_ids(learner.model), "its log-prob would be -inf"
