"""The recipe on real data: it is valid, in the article's order, and no held-out data are trained on."""

import math
from pathlib import Path

import pytest

from configs.load import load_recipe
from rl.run.stage_figures import OWN_FIGURES, source_titles


@pytest.fixture(scope="module")
def recipe():
    return load_recipe(Path(__file__).parents[3] / "configs" / "recipes" / "real_data.yaml")


def test_stages_are_in_the_order_of_the_article(recipe):
    kinds = {stage.name: stage.kind for stage in recipe.stages}
    assert kinds == {
        "text": "pretrain",
        "vit": "vit",
        "alignment": "pretrain",
        "pretrain": "pretrain",
        "cooldown": "pretrain",
        "long_1k": "long_context",
        "long_4k": "long_context",
        "sft": "sft",
        "long_cot": "sft",
        "rl": "rl",
        "long2short": "long2short",
    }
    assert [stage.name for stage in recipe.stages] == list(kinds), "and in this order"
    assert set(kinds.values()) <= set(OWN_FIGURES)


def test_the_held_out_artist_and_splits_are_never_trained_on(recipe):
    for stage in recipe.stages:
        data = recipe.data_of(stage)
        for source in data.train:
            assert source.split == "train"
            assert "fluent" not in source.options.get("style", ())
        known = [source for source in data.held_out if source.split == "train"]
        assert all(source.options["style"] == "fluent" for source in known), "known names, another artist"


def test_every_stage_is_measured_on_the_same_held_out_data(recipe):
    everything = recipe.data.held_out
    for stage in recipe.stages:
        held_out = recipe.data_of(stage).held_out
        assert all(source in everything for source in held_out)
        titles = source_titles(held_out)
        assert len(set(titles.values())) == len(held_out)


def test_worked_solutions_are_scarce_and_answers_are_not(recipe):
    stages = {stage.name: stage for stage in recipe.stages}
    worked = [source for source in recipe.data_of(stages["long_cot"]).train if source.solutions]
    assert sum(source.limit or math.inf for source in worked) <= 600
    assert all(source.limit is None for source in recipe.data_of(stages["rl"]).train)
    assert stages["sft"].thinking_share == 0
