"""Recipes that are made to be expensive or to break the reader: an error at once, which says what is wrong."""

import time
from dataclasses import replace

import pytest

from configs.errors import ConfigError
from configs.load import load_recipe

START = "name: x\noutput_dir: y\n"
BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{new}: &{new} [{','.join(f'*{old}' for _ in range(9))}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "holds more than 5,000 values, each alias counted"),
        ("\n".join(f"key{i}: 1" for i in range(20_000)), "holds more than 5,000 values"),
        ("stages: [{kind: rl, " + ", ".join(f"step{i}: 1" for i in range(4_000)) + "}]", "and [0-9]+ more"),
        ("a: " + "[" * 50_000, "nested deeper than 32 levels"),
        ("a: " + "[" * 100 + "]" * 100, "nested deeper than 32 levels"),
        ("".join(f"{' ' * i}a:\n" for i in range(200)), "nested deeper than 32 levels"),
        ("a:\n  " + "- " * 3_000 + "x", "nested deeper than 32 levels"),
        (f"stages: [{{kind: rl, steps: {'9' * 100}}}]", "steps = 9{60}: must be below 2\\^63 in size"),
        (f"seed: {'9' * 10_000}", "cannot be read as int"),
        (f"seed: {2**63}", "seed = 9223372036854775808: must be below"),
        (f"seed: -{2**64}", "seed = -18446744073709551616: must be below"),
        ("a: &a [*a]", "an alias that contains itself"),
        ("name: z", "name is given twice"),
        ("x" * 2_000_000, "cannot be read: holds more than 1,048,576 bytes"),
        ("? [a, b]\n: c", "a key must be plain text"),
        ("a: !!python/object/apply:os.system [echo]", "no such key"),
        ("'" * 200_001, "not valid YAML"),
        ('a: "\\ud800"', "."),
        ("\x00", "not valid YAML"),
    ],
    ids=lambda value: None if len(value) > 40 else value,
)
def test_a_hostile_recipe_is_a_clear_error_at_once(tmp_path, text, message):
    path = tmp_path / "r.yaml"
    path.write_text(START + text)
    start = time.process_time()
    with pytest.raises(ConfigError, match=message) as caught:
        load_recipe(path)
    assert time.process_time() - start < 30
    assert len(str(caught.value)) < 20_000


@pytest.mark.parametrize("value", ["[" * 10_000, "9" * 100, "{" * 10_000])
def test_a_hostile_override_is_a_clear_error(tmp_path, value):
    path = tmp_path / "r.yaml"
    path.write_text(START + "stages: [{kind: sft, steps: 1}]\n")
    with pytest.raises(ConfigError, match=r"seed"):
        load_recipe(path, [f"seed={value}"])


def test_a_seed_of_more_than_63_bits_is_refused_wherever_it_comes_from(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(START + "stages: [{kind: sft, steps: 1}]\n")
    for seed in (2**63, 2**64, 10**19):
        with pytest.raises(ConfigError, match=f"seed = {seed}: must be below 2\\^63"):
            load_recipe(path, [f"seed={seed}"])
    config = load_recipe(path, [f"seed={2**63 - 1}"])
    assert config.seed == 2**63 - 1
    with pytest.raises(ValueError, match=r"seed = 9223372036854775808: must be from 0 to 2\^63 - 1"):
        replace(config, seed=2**63)
