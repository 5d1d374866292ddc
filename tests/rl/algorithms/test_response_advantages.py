"""Advantages by hand, for every kind of advantage."""

import numpy as np
import pytest

from configs.algorithms import KLConfig, LossConfig
from configs.critic import CriticConfig
from rl.algorithms.response_advantages import Response, response_advantages
from rl.types import ModelOutputs


def response(reward, *, tokens=2, old=-1.0, reference=None, values=None):
    """`reference` and `values` are lists of one number a token."""
    note = ModelOutputs(
        reference_logprobs=None if reference is None else np.asarray(reference, np.float32),
        values=None if values is None else np.asarray(values, np.float32),
    )
    return Response(reward=reward, old_logprobs=np.full(tokens, old, np.float32), model_outputs=note)


def advantages(groups, **config):
    return [[c.advantage for c in group] for group in response_advantages(groups, LossConfig(**config).resolved())]


def flat(groups):
    return [value for group in groups for value in group]


GROUPS = [[response(1.0), response(0.0), response(0.0), response(0.0)], [response(1.0), response(0.0)]]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"algorithm": "grpo"}, [[3**0.5] + [-(3**-0.5)] * 3, [1.0, -1.0]]),
        ({"algorithm": "dr_grpo"}, [[0.75] + [-0.25] * 3, [0.5, -0.5]]),
        ({"algorithm": "kimi_k15"}, [[0.75] + [-0.25] * 3, [0.5, -0.5]]),
        ({"algorithm": "rloo"}, [[1.0] + [-1 / 3] * 3, [1.0, -1.0]]),
        ({"algorithm": "dapo", "advantage": "group_mean"}, [[0.75] + [-0.25] * 3, [0.5, -0.5]]),
    ],
)
def test_a_groups_own_advantages(config, expected):
    for found, wanted in zip(advantages(GROUPS, **config), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5)


def test_the_whole_steps_mean_and_deviation():
    """Rewards 1, 0, 0, 0, 1, 0 of two tokens each: mean 1/3, deviation sqrt(2)/3."""
    off = KLConfig(coef=0)
    found = advantages(GROUPS, algorithm="reinforce_pp", kl=off)
    assert flat(found) == pytest.approx([2**0.5, *[-(2**-0.5)] * 3, 2**0.5, -(2**-0.5)])
    found = advantages(GROUPS, algorithm="reinforce_pp", advantage="group_global_std", kl=off)
    centred = np.array([0.75, -0.25, -0.25, -0.25, 0.5, -0.5])
    assert flat(found) == pytest.approx((centred / centred.std()).tolist())


def test_the_whole_step_counts_tokens_not_answers():
    """A long answer weighs by its tokens: rewards 1 (one token) and 0 (three) have mean 1/4."""
    groups = [[response(1.0, tokens=1)], [response(0.0, tokens=3)]]
    [[first], [second]] = advantages(groups, algorithm="reinforce_pp", kl=KLConfig(coef=0))
    assert first * 1 + second * 3 == pytest.approx(0)
    assert first == pytest.approx(3**0.5)


def test_kl_in_the_reward_is_taken_off_from_each_token_on():
    """REINFORCE++: `A_t = R - beta sum_{i >= t} k1_i`; here k1 = (1, 2) and (0, 0), beta 0.1."""
    groups = [[response(1.0, reference=[-2.0, -3.0]), response(0.0, reference=[-1.0, -1.0])]]
    kl = KLConfig(coef=0.1, estimator="k1", placement="reward")
    [[first, second]] = response_advantages(groups, LossConfig(algorithm="reinforce_pp", kl=kl).resolved())
    raw = np.array([1 - 0.3, 1 - 0.2, 0.0, 0.0])
    expected = (raw - raw.mean()) / raw.std()
    found = np.concatenate([first.columns["token_advantages"], second.columns["token_advantages"]])
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert first.advantage == pytest.approx(expected[:2].mean())


@pytest.mark.parametrize(("estimator", "total"), [("k1", 3.0), ("k2", 2.5), ("k3", np.exp(-1) + np.exp(-2) + 1)])
def test_kl_in_the_reward_of_a_group_is_summed(estimator, total):
    groups = [[response(1.0, reference=[-2.0, -3.0]), response(0.0, reference=[-1.0, -1.0])]]
    kl = KLConfig(coef=0.1, estimator=estimator, placement="reward")
    [found] = advantages(groups, algorithm="dr_grpo", kl=kl)
    assert found == pytest.approx([(1 - 0.1 * total) / 2, -(1 - 0.1 * total) / 2], rel=1e-6)


def test_ppo_by_hand():
    """lambda = 1: returns are the rewards, advantages `R - V`, then standardised over all four tokens."""
    groups = [[response(1.0, values=[0.5, 0.8])], [response(0.0, values=[0.1, 0.4])]]
    [[first], [second]] = response_advantages(groups, LossConfig(algorithm="ppo").resolved())
    raw = np.array([0.5, 0.2, -0.1, -0.4])
    found = np.concatenate([first.columns["token_advantages"], second.columns["token_advantages"]])
    assert found.tolist() == pytest.approx(((raw - raw.mean()) / raw.std()).tolist(), rel=1e-5)
    assert first.columns["returns"].tolist() == pytest.approx([1.0, 1.0])
    assert second.columns["returns"].tolist() == pytest.approx([0.0, 0.0])
    assert first.columns["old_values"].tolist() == pytest.approx([0.5, 0.8])


def test_ppo_reads_gamma_and_lambda():
    """lambda = 0: `r_t + gamma V_{t+1} - V_t`, and returns one step ahead."""
    critic = CriticConfig(gamma=0.9, gae_lambda=0.0)
    groups = [[response(1.0, values=[0.5, 0.8])], [response(0.0, values=[0.1, 0.4])]]
    found = response_advantages(groups, LossConfig(algorithm="ppo", critic=critic).resolved())
    assert found[0][0].columns["returns"].tolist() == pytest.approx([0.72, 1.0])
    assert found[1][0].columns["returns"].tolist() == pytest.approx([0.36, 0.0])


@pytest.mark.parametrize("algorithm", ["ppo", "reinforce_pp", "grpo"])
def test_nothing_gives_nothing(algorithm):
    assert advantages([], algorithm=algorithm) == []
    assert advantages([[], []], algorithm="ppo") == [[], []]


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="need the critic's values"):
        response_advantages([[response(1.0)]], LossConfig(algorithm="ppo").resolved())
    with pytest.raises(ValueError, match="needs the reference's log-probs"):
        response_advantages([[response(1.0)]], LossConfig(algorithm="reinforce_pp").resolved())
