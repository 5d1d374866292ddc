"""Advantages by hand."""

import numpy as np
import pytest

from rl.algorithms.advantages import (
    centered,
    explained_variance,
    gae,
    grpo,
    leave_one_out,
    rewards_of_tokens,
    standardise,
)


def test_centered_by_hand():
    assert centered([1.0, 0.0, 0.0, 1.0, 0.5]).tolist() == pytest.approx([0.5, -0.5, -0.5, 0.5, 0.0])


def test_grpo_by_hand():
    """Mean 0.25, population deviation sqrt(3) / 4."""
    assert grpo([1.0, 0.0, 0.0, 0.0], epsilon=0).tolist() == pytest.approx([3**0.5] + [-(3**-0.5)] * 3)


def test_grpo_divides_by_the_deviation_plus_epsilon():
    assert grpo([0.0, 1.0], epsilon=0.5).tolist() == pytest.approx([-0.5, 0.5])


def test_grpo_does_not_depend_on_the_rewards_scale_or_offset(rng):
    rewards = rng.normal(size=8)
    assert grpo(7 * rewards - 3).tolist() == pytest.approx(grpo(rewards).tolist(), rel=1e-5)


@pytest.mark.parametrize("function", [centered, grpo])
def test_a_constant_group_has_no_advantage(function):
    assert function([1.0, 1.0, 1.0]).tolist() == [0.0] * 3
    assert np.abs(function([0.1] * 7)).max() < 1e-9, "0.1 * 7 / 7 is not 0.1 in binary"


@pytest.mark.parametrize("function", [centered, grpo])
def test_advantages_add_up_to_zero_in_the_order_given(function, rng):
    rewards = rng.normal(size=16)
    values = function(rewards.tolist())
    assert values.sum() == pytest.approx(0, abs=1e-12)
    assert (np.argsort(values) == np.argsort(rewards)).all()


def test_leave_one_out_by_hand():
    """Means of the others: 1/3, 2/3, 2/3, 1/3."""
    assert leave_one_out([1.0, 0.0, 0.0, 1.0]).tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    rewards = [0.3, 0.9, -0.2]
    expected = [r - (sum(rewards) - r) / 2 for r in rewards]
    assert leave_one_out(rewards).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("rewards", [[], [1.0]])
def test_leave_one_out_needs_another(rewards):
    with pytest.raises(ValueError, match="at least 2"):
        leave_one_out(rewards)


def test_standardise_by_hand():
    """1, 3 | 5: mean 3, deviation sqrt(8 / 3)."""
    parts = standardise([np.array([1.0, 3.0]), np.array([5.0])])
    assert parts[0].tolist() == pytest.approx([-2 / (8 / 3) ** 0.5, 0.0])
    assert parts[1].tolist() == pytest.approx([2 / (8 / 3) ** 0.5])
    assert [p.tolist() for p in standardise([np.array([2.0, 2.0])])] == [[0.0, 0.0]]


def test_rewards_of_tokens_by_hand():
    assert rewards_of_tokens(1.0, np.array([0.1, 0.2, 0.3])).tolist() == pytest.approx([-0.1, -0.2, 0.7])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (0.5, 0.0)])
def test_gae_is_the_sum_of_equation_16(rng, gamma, lam):
    """`A_t = sum_l (gamma lam)^l delta_{t+l}`, `delta_t = r_t + gamma V_{t+1} - V_t`, written out."""
    rewards, values = rng.normal(size=6), rng.normal(size=6)
    following = [*values[1:], 0.0]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, following, values, strict=True)]
    expected = [sum((gamma * lam) ** k * deltas[t + k] for k in range(6 - t)) for t in range(6)]
    [(found, returns)] = gae([rewards], [values], gamma=gamma, lam=lam)
    assert found.tolist() == pytest.approx(expected)
    assert returns.tolist() == pytest.approx((np.array(expected) + values).tolist())


def test_gae_by_hand():
    """gamma 0.5, lambda 0.5: deltas 1 + 0.5 * 2 - 1 = 1 and 3 - 2 = 1, so A = 1 + 0.25, 1."""
    [(found, returns)] = gae([np.array([1.0, 3.0])], [np.array([1.0, 2.0])], gamma=0.5, lam=0.5)
    assert found.tolist() == [1.25, 1.0]
    assert returns.tolist() == [2.25, 3.0]


def test_gae_of_many_responses_is_that_of_each_to_the_bit(rng):
    """The recurrence token by token, for more responses than are worked on together, of unlike lengths."""
    lengths = [0, 1, 40, *rng.integers(0, 30, 297)]
    rewards, values = ([rng.normal(size=n) for n in lengths] for _ in range(2))
    for r, v, (found, _) in zip(rewards, values, gae(rewards, values, gamma=0.99, lam=0.95), strict=True):
        deltas, running = r + 0.99 * np.append(v[1:], 0.0)[: len(v)] - v, 0.0
        expected = []
        for delta in deltas[::-1]:
            running = delta + 0.99 * 0.95 * running
            expected.append(running)
        assert found.tolist() == expected[::-1]


def test_explained_variance_by_hand():
    returns = np.array([1.0, 0.0, 1.0, 0.0])
    assert explained_variance(returns, returns) == 1
    assert explained_variance(np.full(4, 0.7), returns) == pytest.approx(0)
    assert explained_variance(returns / 2, returns) == pytest.approx(0.75)
    assert explained_variance(1 - returns, returns) == pytest.approx(-3)
    assert np.isnan(explained_variance(returns, np.ones(4)))
