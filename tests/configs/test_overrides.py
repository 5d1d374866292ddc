"""`key=value` on the command line."""

import pytest

from configs.load import ConfigError, load_recipe

RECIPE = "name: q\noutput_dir: runs/q\nseed: 1\nrl:\n  steps: 3\ndata:\n  train:\n  - {use: digit_sums, limit: 9}\n"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE)
    return file


def problems(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    return [str(problem) for problem in caught.value.problems]


def test_values_are_yaml(path):
    config = load_recipe(
        path, ["seed=7", "export=false", "name=a=b", "rl.sampling.top_p=.5", "rl.loss={tau: 1e-2}", "rl.epochs=2"]
    )
    assert (config.seed, config.export, config.name) == (7, False, "a=b")
    assert (config.rl.sampling.top_p, config.rl.loss.tau) == (0.5, 0.01)


def test_the_last_of_two_wins(path):
    assert load_recipe(path, ["seed=7", "seed=8"]).seed == 8


def test_null_switches_a_stage_off_and_a_key_on_again(path):
    assert load_recipe(path, ["rl=null", "instruct.steps=2"]).rl is None
    assert load_recipe(path, ["rl=null", "rl.steps=2"]).rl.steps == 2


def test_a_key_that_is_cut_short_is_completed_where_only_one_fits(path):
    config = load_recipe(path, ["rl.learning_rate=1e-4", "temperature=0.5", "rl.loss.tau=2", "rl.epochs=2"])
    assert config.rl.optimizer.learning_rate == 1e-4
    assert config.rl.sampling.temperature == 0.5
    assert config.instruct is None


def test_a_key_that_is_cut_short_is_refused_where_several_fit(path):
    assert problems(path, "learning_rate=1e-4") == [
        "command line: learning_rate: no such key; did you mean instruct.optimizer.learning_rate or "
        "long_cot.optimizer.learning_rate or rl.optimizer.learning_rate?"
    ]


def test_a_place_in_a_list(path):
    config = load_recipe(path, ["data.train.0.use=easy_vqa", "data.train.1.use=digit_sums"])
    assert [(source.use, source.limit) for source in config.data.train] == [("easy_vqa", 9), ("digit_sums", None)]


def test_a_list_that_the_recipe_leaves_out_starts_from_its_default(path):
    (source,) = load_recipe(path, ["data.held_out.0.limit=5"]).data.held_out
    assert (source.use, source.split, source.limit) == ("digit_sums", "held_out", 5)
    (reward,) = load_recipe(path, ["rl.rewards.0.weight=2"]).rl.rewards
    assert (reward.use, reward.weight) == ("verifier", 2.0)


def test_names_of_the_users_own(path):
    config = load_recipe(path, ["data.train.0.columns.image=pic", "data.train.0.options.operators=[+, x]"])
    assert config.data.train[0].columns == {"image": "pic"}
    assert config.data.train[0].options == {"operators": ["+", "x"]}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rl.steps", "'rl.steps': write key=value, such as rl.steps=20"),
        ("=3", "'=3': write key=value, such as rl.steps=20"),
        ("rl..steps=3", "'rl..steps=3': write key=value, such as rl.steps=20"),
        ("rl.steps=", "'rl.steps=': the value is missing; rl.steps=null switches a key off"),
        ("rl.steps=ten", 'rl.steps = "ten": must be a whole number'),
        ("rl.steps=0", "rl.steps = 0: must be 1 or more"),
        ("rl.stepz=3", "rl.stepz: no such key; did you mean rl.steps?"),
        ("rl.optimiser.learning_rate=3", "rl.optimiser: no such key; did you mean rl.optimizer?"),
        ("name.x=3", "name.x: name is 'q' in the recipe, and holds no keys"),
        ("data.train.5.use=a", "data.train.5.use: data.train is a list of 1; use 0 to 1, where 1 adds one"),
        ("data.train.5=a", "data.train.5: data.train is a list of 1; use 0 to 1, where 1 adds one"),
        ("data.train.use=a", "data.train.use: data.train is a list of 1; use 0 to 1, where 1 adds one"),
        ("data.train.-1.use=a", "data.train.-1.use: data.train is a list of 1; use 0 to 1, where 1 adds one"),
        ("data.train.1.limit=4", "data.train.1.use is missing: give it text"),
        ("rl.loss.tau=[", "rl.loss.tau: not valid YAML: while parsing a flow node expected the node content, "
         "but found '<stream end>'"),
        ("rl.loss.tau=.inf", "rl.loss.tau = .inf: must be a finite number"),
        ("rl={steps: 1, steps: 2}", "rl.steps is given twice, first at command line; keep one"),
    ],
)  # fmt: skip
def test_a_mistake_is_placed_on_the_command_line(path, override, expected):
    assert problems(path, override) == [f"command line: {expected}"]


def test_what_an_override_replaces_is_not_blamed_on_the_file(path):
    assert problems(path, "rl={steps: x}") == ['command line: rl.steps = "x": must be a whole number']
