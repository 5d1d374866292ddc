"""Every family has what the pipeline needs of one, and what it declares is what its classes have."""

import inspect

import pytest

from rollouts import model_family
from rollouts.model_family import FAMILIES, TINY_FAMILY, ModelFamily, family_at, family_of, known_licence


def members(declaration):
    return {name for name in (*vars(declaration), *declaration.__annotations__) if not name.startswith("_")}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture
def checkpoint(family, tmp_path):
    return family.create_tiny_checkpoint(tmp_path / "tiny", corpus=["1 + 2"], sizes={"hidden_size": 32})


def test_a_family_has_every_member_with_the_declared_arguments(family):
    for name in members(ModelFamily):
        assert hasattr(family, name), name
        declared = vars(ModelFamily).get(name)
        if callable(declared):
            wanted = [p for p in inspect.signature(declared).parameters if p != "self"]
            given = inspect.signature(getattr(family, name)).parameters
            assert not set(wanted) - set(given), name


def test_its_classes_have_every_declared_member(family, checkpoint):
    model, processor = family.load_model(checkpoint), family.load_processor(checkpoint)
    for thing, declared in (
        (model, model_family.VisionLanguageModel),
        (model.config, model_family.VisionLanguageConfig),
        (processor, model_family.VisionLanguageProcessor),
        (family.new_routing(), model_family.Routing),
    ):
        missing = [name for name in members(declared) if not hasattr(thing, name)]
        assert not missing, (type(thing), missing)
    assert model.config.hidden_size == 32 if hasattr(model.config, "hidden_size") else True
    assert processor.patch_shape == model.config.patch_shape
    assert (
        processor.tokenizer.convert_tokens_to_ids(processor.turn_end)
        in family.stop_and_barred_ids(checkpoint, processor)[0]
    )


def test_shard_units_hold_every_parameter_once_or_leave_it_to_the_model(family, checkpoint):
    model = family.load_model(checkpoint)
    inside = {id(p) for unit in model.shard_units() for p in unit.parameters()}
    left = {name for name, p in model.named_parameters() if id(p) not in inside}
    assert not left, "only tied weights are the model's own"


def test_a_checkpoint_says_its_family(family, checkpoint):
    assert family_at(checkpoint) is family
    assert family_of(family.load_config(checkpoint)) is family


def test_a_model_of_no_family_is_refused_with_those_that_there_are(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"is a llama model .*; must be .*kimi_vl"):
        family_at(tmp_path)


def test_licences_and_the_tiny_family_are_known():
    assert TINY_FAMILY in FAMILIES
    assert known_licence("moonshotai/Kimi-VL-A3B-Instruct") == "mit"
    assert known_licence("somebody/else") is None
