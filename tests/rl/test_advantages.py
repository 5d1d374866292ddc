"""Advantages by hand."""

import numpy as np
import pytest

from rl.advantages import centered, grpo, has_signal


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


@pytest.mark.parametrize(
    ("rewards", "expected"), [([], False), ([1.0], False), ([0.0, 0.0], False), ([0.0, 1e-9], True)]
)
def test_signal(rewards, expected):
    assert has_signal(rewards) is expected
