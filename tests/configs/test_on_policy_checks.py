"""One update a step: what has no effect is refused, and several updates pass."""

import pytest

from configs.algorithms import KLConfig, LossConfig
from configs.on_policy_checks import single_update_note
from configs.rl import RLConfig


@pytest.mark.parametrize("updates", [{"epochs": 2}, {"minibatches": 2}])
def test_several_updates_have_a_log_ratio(updates):
    kl = KLConfig(coef=0.1)
    assert RLConfig(steps=1, loss=LossConfig(algorithm="gspo", kl=kl, reference="iteration"), **updates)
    assert RLConfig(steps=1, loss=LossConfig(algorithm="kimi_k15", tau=0.5), **updates)
    assert single_update_note(LossConfig(algorithm="kimi_k15"), updates=2) is None


@pytest.mark.parametrize("reference", ["frozen", "ema"])
def test_another_reference_has_a_log_ratio(reference):
    loss = LossConfig(algorithm="kimi_k15", tau=0.5, reference=reference)
    assert RLConfig(steps=1, loss=loss)
    assert single_update_note(loss, updates=1) is None


def test_what_nobody_chose_is_not_warned_of():
    assert single_update_note(LossConfig(), updates=1) is None
    assert single_update_note(LossConfig(reset_optimizer=True), updates=1) is not None
