"""What a user sees of a recipe's mistakes: the key, the place, the value, what is allowed, the nearest valid key."""

import pickle

import pytest

from configs.load import ConfigError, load_recipe

HEAD = "name: q\noutput_dir: runs/q\n"
RL = HEAD + "stages:\n- kind: rl\n  steps: 3\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Writes `r.yaml` in the current folder, so that messages are short."""
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
        return "r.yaml"

    return write


def problems(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            RL + "  stepz: 4\n", "r.yaml:6: rl.stepz: no such key; did you mean rl.steps?", id="typo in the section"
        ),
        pytest.param(
            RL + "  learning_rate: 1e-4\n",
            "r.yaml:6: rl.learning_rate: no such key; did you mean rl.optimizer.learning_rate?",
            id="a level left out",
        ),
        pytest.param(
            RL + "  weight: 2\n",
            "r.yaml:6: rl.weight: no such key; did you mean rl.rewards.N.weight or rl.length_reward.weight?",
            id="a level left out, two ways",
        ),
        pytest.param(
            RL + "  optimiser:\n    learning_rate: 1e-4\n",
            "r.yaml:6: rl.optimiser: no such key; did you mean rl.optimizer?",
            id="a section's name",
        ),
        pytest.param(
            RL + "temperature: 1\n",
            "r.yaml:6: temperature: no such key; did you mean rl.sampling.temperature?",
            id="a key of another section at the top",
        ),
        pytest.param(
            RL + "  sampling:\n    clip_low: 0.1\n",
            "r.yaml:7: rl.sampling.clip_low: no such key; did you mean rl.loss.clip_low?",
            id="a key of a neighbour",
        ),
        pytest.param(
            RL + "  sampling:\n    foo: 1\n",
            "r.yaml:7: rl.sampling.foo: no such key; "
            "the keys of rl.sampling are max_new_tokens, temperature, top_p, top_k, min_p, "
            "repeat_window",
            id="nothing near",
        ),
        pytest.param(
            RL + "  lerning_rate: 1e-4\n",
            "r.yaml:6: rl.lerning_rate: no such key; did you mean rl.optimizer.learning_rate?",
            id="a typo, and a level left out",
        ),
        pytest.param(
            RL + "evaluation.tasks: 3\n",
            "r.yaml:6: evaluation.tasks: no such key; "
            "in a file, sections are nested: write each part on its own line, indented under the one before",
            id="dots in a file",
        ),
        pytest.param(
            RL + "data:\n  train:\n  - {use: a.jsonl, colums: {}}\n",
            "r.yaml:8: data.train.0.colums: no such key; did you mean data.train.0.columns?",
            id="in a list, in one line",
        ),
    ],
)
def test_an_unknown_key_names_the_nearest(recipe, text, expected):
    assert problems(recipe(text)) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "stages: [{kind: rl, steps: ten}]\n", 'r.yaml:3: rl.steps = "ten": must be a whole number'),
        (HEAD + "stages: [{kind: rl, steps: '10'}]\n", 'r.yaml:3: rl.steps = "10": must be a whole number'),
        (HEAD + "stages: [{kind: rl, steps: 2.5}]\n", "r.yaml:3: rl.steps = 2.5: must be a whole number"),
        (HEAD + "stages: [{kind: rl, steps: 2.0}]\n", "r.yaml:3: rl.steps = 2.0: must be a whole number"),
        (HEAD + "stages: [{kind: rl, steps: true}]\n", "r.yaml:3: rl.steps = true: must be a whole number"),
        (HEAD + "stages: [{kind: rl, steps: }]\n", "r.yaml:3: rl.steps = null: must be a whole number"),
        (RL + "  sampling:\n    temperature: yes\n", 'r.yaml:7: rl.sampling.temperature = "yes": must be a number'),
        (RL + "  sampling:\n    temperature: true\n", "r.yaml:7: rl.sampling.temperature = true: must be a number"),
        (RL + "export: yes\n", 'r.yaml:6: export = "yes": must be true or false'),
        (RL + "export: 1\n", "r.yaml:6: export = 1: must be true or false"),
        (RL + "threads: two\n", 'r.yaml:6: threads = "two": must be a whole number, or null'),
        ("name: 7\noutput_dir: x\nstages: [{kind: rl, steps: 3}]\n", "r.yaml:1: name = 7: must be text"),
        (
            RL + "  loss: {algorithm: grpq}\n",
            'r.yaml:6: rl.loss.algorithm = "grpq": must be one of kimi_k15, grpo, dr_grpo, dapo, '
            "gspo, cispo, rloo, reinforce_pp, ppo; did you mean grpo?",
        ),
        (
            RL + "  sampling: 3\n",
            "r.yaml:6: rl.sampling = 3: must be a section with the keys "
            "max_new_tokens, temperature, top_p, top_k, min_p, repeat_window",
        ),
        (
            RL + "  length_reward: true\n",
            "r.yaml:6: rl.length_reward = true: must be a section with the keys weight, warmup_steps, or null",
        ),
        (
            RL + "  rewards: verifier\n",
            'r.yaml:6: rl.rewards = "verifier": must be a list, each item a section with the keys use, weight, '
            "only_for, in_process, workers, seconds, memory_mb, env, imports",
        ),
        (
            RL + "data:\n  train:\n  - use: a.jsonl\n    columns:\n      image: [pic]\n",
            'r.yaml:10: data.train.0.columns.image = ["pic"]: must be text',
        ),
        (
            RL + "  optimizer: {weight_decay: .nan}\n",
            "r.yaml:6: stages.0.optimizer.weight_decay = .nan: must be a finite number",
        ),
        (
            RL + "  optimizer: {grad_clip: 1e999}\n",
            "r.yaml:6: stages.0.optimizer.grad_clip = 1e999: must be a finite number",
        ),
        (RL + "seed: !!int ten\n", "r.yaml:6: seed = ten: cannot be read as int; leave the tag out"),
        (
            RL + "seed: !!python/name:os.system 1\n",
            "r.yaml:6: seed = 1: cannot be read as python/name:os.system; leave the tag out",
        ),
        (RL + "model: {path: !secret x}\n", "r.yaml:6: model.path = x: cannot be read as !secret; leave the tag out"),
    ],
)
def test_a_wrong_type_says_what_is_allowed(recipe, text, expected):
    assert problems(recipe(text))[0] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "stages:\n- kind: rl\n  workers: 1\n", "r.yaml:4: rl.steps is missing: give it a whole number"),
        ("output_dir: x\nstages: [{kind: rl, steps: 1}]\n", "r.yaml:1: name is missing: give it text"),
        (RL + "data:\n  train:\n  - limit: 3\n", "r.yaml:8: data.train.0.use is missing: give it text"),
    ],
)
def test_a_missing_key_is_placed_at_its_section(recipe, text, expected):
    assert problems(recipe(text)) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEAD + "stages:\n- kind: rl\n  workers: 1\n  steps: 0\n", "r.yaml:6: rl.steps = 0: must be 1 or more"),
        (
            RL + "  sampling:\n    temperature: 0\n",
            "r.yaml:7: rl.sampling.temperature = 0.0: must be greater than 0 in RL",
        ),
        (
            RL + "  prompts_per_step: 2\n  minibatches: 3\n",
            "r.yaml:7: rl.minibatches = 3: must be at most prompts_per_step = 2",
        ),
        (
            RL + "  optimizer:\n    betas: [2, 0.95]\n",
            "r.yaml:7: rl.optimizer.betas = (2.0, 0.95): must be two numbers in [0, 1)",
        ),
        (RL + "  optimizer:\n    betas: [0.9]\n", "r.yaml:7: rl.optimizer.betas.1 is missing: give it a number"),
        (RL + "data:\n  train: []\n", "r.yaml:7: data.train = (): must be at least one source"),
        (
            HEAD,
            "r.yaml:1: stages is missing: give it a list, each item a stage: `kind` (one of vit, pretrain, "
            "long_context, sft, long2short, rl) and the keys of its kind",
        ),
        (
            "name: a/b\noutput_dir: x\nstages: [{kind: rl, steps: 1}]\n",
            "r.yaml:1: name = 'a/b': must be a non-empty name without '/'",
        ),
    ],
)
def test_a_broken_rule_is_placed_at_its_key(recipe, text, expected):
    assert problems(recipe(text)) == [expected]


def test_every_problem_is_told_at_once(recipe):
    path = recipe(RL + "  stepz: 1\nseed: x\nmodle: 1\n")
    found = problems(path, "rl.workers=none", "nonsense")
    assert found == [
        "command line: 'nonsense': write key=value, such as rl.steps=20",
        'r.yaml:7: seed = "x": must be a whole number',
        'command line: rl.workers = "none": must be a whole number',
        "r.yaml:6: rl.stepz: no such key; did you mean rl.steps?",
        "r.yaml:8: modle: no such key; did you mean model?",
    ]
    with pytest.raises(ConfigError, match=r"\A2 problems in the recipe:\n  r.yaml:7: .*\n  r.yaml:8: .*\Z"):
        load_recipe(recipe(RL + "\nmodle: 1\nmodelo: 1\n"))


def test_a_problem_carries_its_key(recipe):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(RL + "  stepz: 1\n"))
    (problem,) = caught.value.problems
    assert (problem.key, problem.where) == ("rl.stepz", "r.yaml:6")


def test_the_error_survives_pickling(recipe):
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe(RL + "  stepz: 1\n"))
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert again.problems == caught.value.problems
