"""What an algorithm reads before the update is known from its config: ranks are not sent groups for nothing."""

from dataclasses import fields

import pytest
from rl_helpers import make_learner, make_prompt, make_scored

from configs.algorithms import ALGORITHMS, KLConfig, LossConfig
from rollouts.sources.group_building import make_groups

RECIPES = [
    *((LossConfig(algorithm=name), {}) for name in ALGORITHMS),
    (LossConfig(algorithm="kimi_k15", reference="frozen"), {}),
    (LossConfig(algorithm="grpo"), {"epochs": 2}),
    (LossConfig(algorithm="grpo", kl=KLConfig(coef=0.1)), {}),
]


@pytest.fixture
def groups(rng, model):
    prompt = make_prompt(rng, model)
    return make_groups([prompt], [[make_scored(prompt, reward) for reward in (1.0, 0.0)]])


@pytest.mark.parametrize(("loss", "options"), RECIPES, ids=lambda value: getattr(value, "algorithm", None))
def test_the_config_knows_whether_a_model_is_read(model, groups, loss, options):
    learner = make_learner(model, loss=loss, **options)
    found = [getattr(o, f.name) for own in learner.model_outputs(groups) for o in own for f in fields(o)]
    assert learner.config.reads_before_update == any(column is not None for column in found)
