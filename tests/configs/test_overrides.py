"""`key=value` on the command line."""

import pytest

from configs.load import ConfigError, load_recipe

RECIPE = "name: q\noutput_dir: runs/q\nseed: 1\nstages:\n- kind: rl\n  steps: 3\n"
RECIPE += "data:\n  train:\n  - {use: digit_sums, limit: 9}\n"


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
    assert (config.last_rl.sampling.top_p, config.last_rl.loss.tau) == (0.5, 0.01)


def test_the_last_of_two_wins(path):
    assert load_recipe(path, ["seed=7", "seed=8"]).seed == 8


TWO = RECIPE.replace("- kind: rl", "- {kind: sft, name: warm, steps: 2}\n- kind: rl")


def test_null_leaves_a_stage_out(path):
    path.write_text(TWO)
    config = load_recipe(path, ["rl=null"])
    assert [stage.name for stage in config.stages] == ["warm"]
    assert config.last_rl is None
    config = load_recipe(path, ["warm=null", "rl.steps=8"])
    assert [(stage.name, stage.steps) for stage in config.stages] == [("rl", 8)]
    assert problems(path, "rl=null", "warm=null")[0].endswith("stages = []: must be at least one stage")


def test_a_stage_is_named_or_counted(path):
    path.write_text(TWO)
    config = load_recipe(path, ["warm.steps=5", "stages.rl.workers=3", "stages.1.epochs=2", "warm.learning_rate=0.5"])
    warm, rl = config.stages
    assert (warm.steps, warm.optimizer.learning_rate, rl.workers, rl.epochs) == (5, 0.5, 3, 2)


def test_a_stage_is_added_at_the_end(path):
    config = load_recipe(path, ["stages.1={kind: sft, steps: 4}", "sft.batch_size=2"])
    assert [(stage.kind, stage.name, stage.steps) for stage in config.stages] == [("rl", "rl", 3), ("sft", "sft", 4)]


def test_a_stage_that_is_replaced_keeps_its_kind_and_name(path):
    path.write_text(TWO)
    warm, rl = load_recipe(path, ["warm={steps: 9}", "rl={steps: 1, name: think}"]).stages
    assert (warm.kind, warm.name, warm.steps) == ("sft", "warm", 9)
    assert (rl.kind, rl.name, rl.steps) == ("rl", "think", 1)


def test_data_of_a_stage_is_completed_by_the_runs(path):
    config = load_recipe(path, ["rl.data.held_out.0.split=other", "data.max_prompt_tokens=64"])
    (stage,) = config.stages
    assert stage.data.train == config.data.train
    assert (stage.data.train[0].limit, stage.data.max_prompt_tokens) == (9, 64)
    assert stage.data.held_out[0].split == "other"
    assert config.data_of(stage) == stage.data


def test_a_list_in_a_stages_data_starts_from_the_runs(path):
    config = load_recipe(path, ["rl.data.train.0.limit=5"])
    assert [(source.use, source.limit) for source in config.data_of(config.stages[0]).train] == [("digit_sums", 5)]
    assert config.data.train[0].limit == 9


def test_a_key_that_is_cut_short_is_completed_where_only_one_fits(path):
    given = ["rl.learning_rate=1e-4", "rl.temperature=0.5", "rl.loss.tau=2", "rl.epochs=2", "dtype=bfloat16"]
    config = load_recipe(path, given)
    assert config.last_rl.optimizer.learning_rate == 1e-4
    assert config.last_rl.sampling.temperature == 0.5
    assert config.model.dtype == "bfloat16"


def test_a_key_that_is_cut_short_is_refused_where_several_fit(path):
    path.write_text(TWO)
    assert problems(path, "learning_rate=1e-4") == [
        "command line: learning_rate: no such key; did you mean warm.optimizer.learning_rate or "
        "rl.optimizer.learning_rate?"
    ]


def test_a_place_in_a_list(path):
    config = load_recipe(path, ["data.train.0.use=easy_vqa", "data.train.1.use=digit_sums"])
    assert [(source.use, source.limit) for source in config.data.train] == [("easy_vqa", 9), ("digit_sums", None)]


def test_a_list_that_the_recipe_leaves_out_starts_from_its_default(path):
    (source,) = load_recipe(path, ["data.held_out.0.limit=5"]).data.held_out
    assert (source.use, source.split, source.limit) == ("digit_sums", "held_out", 5)
    (reward,) = load_recipe(path, ["rl.rewards.0.weight=2"]).last_rl.rewards
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
        ("stages.rll.steps=3", "stages.rll.steps: no stage is called 'rll'; the recipe's stages: rl"),
        ("rll.steps=3", "rll: no such key; did you mean rl?"),
        ("stages.4=null", "stages.4: the recipe has 1 stage, counted from 0"),
        (
            "stages.1={steps: 4}",
            "stages.1.kind is missing: give it one of vit, pretrain, long_context, sft, long2short, rl",
        ),
        (
            "rl.kind=rlx",
            'stages.0.kind = "rlx": must be one of vit, pretrain, long_context, sft, long2short, rl; did you mean rl?',
        ),
        ("rl.name=data", "data.name = 'data': must be another name: it is in use for something else"),
        ("rl.name=a/b", "a/b.name = 'a/b': must be letters, digits, `_` and `-`, beginning with a letter"),
        ("rl.stepz=3", "rl.stepz: no such key; did you mean rl.steps?"),
        ("rl.optimiser.learning_rate=3", "rl.optimiser: no such key; did you mean rl.optimizer?"),
        ("name.x=3", "name.x: name is 'q' in the recipe, and holds no keys"),
        ("data.train.5.use=a", "data.train.5.use: data.train is a list of 1; use 0 to 1, where 1 adds one"),
        ("data.train.5=a", "data.train.5: data.train is a list of 1; use 0 to 1, where 1 adds one"),
        ("data.train.use=a", "data.train.use: data.train is a list of 1; use 0 to 1, where 1 adds one"),
        ("data.train.-1.use=a", "data.train.-1.use: data.train is a list of 1; use 0 to 1, where 1 adds one"),
        ("data.train.1.limit=4", "data.train.1.use is missing: give it text"),
        ("rl.loss.tau=[", "stages.0.loss.tau: not valid YAML: while parsing a flow node expected the node content, "
         "but found '<stream end>'"),
        ("rl.loss.tau=.inf", "stages.0.loss.tau = .inf: must be a finite number"),
        ("rl={steps: 1, steps: 2}", "stages.0.steps is given twice, first at command line; keep one"),
    ],
)  # fmt: skip
def test_a_mistake_is_placed_on_the_command_line(path, override, expected):
    assert problems(path, override) == [f"command line: {expected}"]


def test_what_an_override_replaces_is_not_blamed_on_the_file(path):
    assert problems(path, "rl={steps: x}") == ['command line: rl.steps = "x": must be a whole number']
