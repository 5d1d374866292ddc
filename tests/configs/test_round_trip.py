"""A recipe written out loads back equal, and its digest says whether two runs are the same."""

import dataclasses
import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from configs.data import DataConfig, SourceConfig
from configs.load import dump_recipe, load_recipe
from configs.optimizer import OptimizerConfig
from configs.rewards import RewardConfig
from configs.rl import RLConfig, SamplingConfig
from configs.schema import RunConfig

TEXT = st.text(max_size=12)
POSITIVE = st.floats(min_value=1e-12, max_value=1e12)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXT.filter(lambda key: key != "<<"), inner, max_size=3)
    ),
    max_leaves=5,
)
SOURCES = st.builds(
    SourceConfig,
    use=TEXT,
    weight=POSITIVE,
    limit=st.none() | st.integers(1, 10**9),
    columns=st.dictionaries(TEXT.filter(lambda key: key != "<<"), TEXT, max_size=2),
    options=st.dictionaries(TEXT.filter(lambda key: key != "<<"), PLAIN, max_size=2),
)
CONFIGS = st.builds(
    RunConfig,
    name=TEXT.filter(lambda name: name and "/" not in name),
    output_dir=TEXT.filter(bool),
    seed=st.integers(0, 2**63 - 1),
    threads=st.none() | st.integers(1, 64),
    data=st.builds(DataConfig, train=st.lists(SOURCES, min_size=1, max_size=2).map(tuple)),
    stages=st.builds(
        lambda **keys: (RLConfig(**keys),),
        steps=st.integers(1, 10**6),
        sampling=st.builds(SamplingConfig, temperature=st.floats(min_value=0.01, max_value=1e12)),
        optimizer=st.builds(OptimizerConfig, learning_rate=POSITIVE),
        rewards=st.lists(st.builds(RewardConfig, use=TEXT, weight=POSITIVE), min_size=1, max_size=2).map(tuple),
        shuffle_rewards=st.booleans(),
    ),
    export=st.booleans(),
)


@given(CONFIGS)
def test_a_recipe_written_out_loads_back_equal(tmp_path_factory, config):
    path = tmp_path_factory.mktemp("round") / "r.yaml"
    text = dump_recipe(config)
    path.write_text(text, encoding="utf-8", newline="")
    again = load_recipe(path)
    assert again == config
    assert dump_recipe(again) == text


SMALL = RunConfig(
    name="no", output_dir="runs/1e-4", stages=(RLConfig(steps=3, optimizer=OptimizerConfig(learning_rate=1e-6)),)
)


def test_everything_is_written_in_the_schemas_order():
    assert list(yaml.safe_load(dump_recipe(SMALL))) == [field.name for field in dataclasses.fields(RunConfig)]


def test_plain_pyyaml_reads_the_same_values():
    assert yaml.safe_load(dump_recipe(SMALL)) == json.loads(json.dumps(dataclasses.asdict(SMALL)))


def test_a_whole_number_and_its_float_are_one_recipe():
    one, other = (
        dataclasses.replace(SMALL, stages=(RLConfig(steps=1, rewards=(RewardConfig(weight=w),)),)) for w in (1, 1.0)
    )
    assert dump_recipe(one) == dump_recipe(other)
