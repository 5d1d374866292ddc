"""The critic's share of the loss: its clip over the iterations, its weight, and what a value is read from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import make_samples

from configs.critic import CriticConfig
from configs.optimizer import OptimizerConfig
from rl.learner.batch import make_micro_batch
from rl.learner.critic import Critic
from rl.learner.parallel import SINGLE_PROCESS


@pytest.fixture
def samples(rng, model):
    """Of text alone; every return is 1, every value before the update 0."""
    made = [s for s in make_samples(rng, model) if not len(s.prompt.pixel_values)]
    ones = [np.ones(len(s.token_ids), np.float32) for s in made]
    return [replace(s, columns={"old_values": 0 * o, "returns": o}) for s, o in zip(made, ones, strict=True)]


def shared(model, **options):
    return Critic(
        model,
        CriticConfig(backbone="shared", **options),
        SINGLE_PROCESS,
        optimizer=OptimizerConfig(learning_rate=1e-3),
        total_steps=9,
    )


def hidden_states(model, micro):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(len(micro.targets), model.config.text_config.hidden_size, generator=generator)


def test_the_value_clip_begins_with_the_second_iteration(model, samples):
    """Values of 0.9 after 0, returns of 1: the clip at 0.2 turns squares of 0.1 into squares of 0.8."""
    critic, micro = shared(model, value_clip=0.2, value_coef=1.0), make_micro_batch(samples, None)
    hidden, tokens = hidden_states(model, micro), len(micro.targets)
    torch.nn.init.constant_(critic.head.outer.bias, 0.9)
    for expected, clipped in ((0.01 / 2, 0.0), (0.64 / 2, 1.0), (0.64 / 2, 1.0)):
        output = critic.loss(micro, hidden, step_tokens=tokens)
        assert float(output.loss) == pytest.approx(expected, rel=1e-4)
        assert float(output.metrics["value_clip_fraction"]) == clipped
        critic.end_iteration(1)


@pytest.mark.parametrize("coef", [0.25, 2.0])
def test_the_weight_of_the_value_loss_is_a_shared_backbones(model, samples, coef):
    """An own backbone serves the critic alone, so its loss keeps a weight of 1."""
    micro = make_micro_batch(samples, None)
    rate = OptimizerConfig(learning_rate=1e-3)
    own = Critic(model, CriticConfig(backbone="own"), SINGLE_PROCESS, optimizer=rate, total_steps=9)
    for critic, weight in ((shared(model, value_coef=coef), coef), (own, 1.0)):
        output = critic.loss(micro, hidden_states(model, micro), step_tokens=len(micro.targets))
        assert float(output.metrics["value_loss"]) == pytest.approx(0.5)
        assert float(output.loss) == pytest.approx(weight * 0.5)


def test_a_value_is_read_from_hidden_states_and_surprises(model, samples):
    critic, micro = shared(model), make_micro_batch(samples, None)
    torch.nn.init.normal_(critic.head.outer.weight, generator=torch.Generator().manual_seed(1))
    hidden = hidden_states(model, micro)
    values = critic.values(micro, micro.old_logprobs, hidden, None)
    surprised = critic.values(micro, micro.old_logprobs - 2, hidden, None)
    first = (micro.lengths.cumsum(0) - micro.lengths).tolist()
    later = [i for i in range(len(values)) if i not in first]
    assert torch.equal(values[first], surprised[first]), "nothing comes before a completion's first token"
    assert (values[later] - surprised[later]).abs().min() > 1e-4
    assert (values - critic.values(micro, micro.old_logprobs, hidden.flip(0), None)).abs().max() > 1e-2
