"""Files that are not recipes, or hardly YAML, and the scalars that YAML dialects disagree on."""

import pytest

from configs.load import ConfigError, load_recipe
from configs.yaml_io import dump, parse

RL = "name: q\noutput_dir: runs/q\nstages:\n- kind: rl\n  steps: 3\n"
NEEDED = "a recipe is a mapping of keys that starts with `name:` and `output_dir:`"


def problem(path):
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", f"r.yaml: the file is empty; {NEEDED}"),
        (b"# only a comment\n", f"r.yaml: the file is empty; {NEEDED}"),
        (b"~\n", f"r.yaml:1: the file is empty; {NEEDED}"),
        (b"\n- a\n- b\n", f'r.yaml:2: holds ["a", "b"]; {NEEDED}'),
        (b"quickstart\n", f'r.yaml:1: holds "quickstart"; {NEEDED}'),
        (b"\xff\xfe\x00a", "r.yaml: not UTF-8 text (byte 0); a recipe is a YAML file"),
        (b"name: q\x07\n", "not valid YAML: unacceptable character #x0007: special characters are not allowed"),
        (b"name: q\n\tseed: 1\n", "r.yaml:2: not valid YAML: while scanning for the next token found character '\\t'"),
        (b"name: [q\nseed: 1\n", "r.yaml:2: not valid YAML: while parsing a flow sequence expected ',' or ']'"),
        (b"name: q\n---\nname: r\n", "r.yaml:2: not valid YAML: expected a single document"),
        (
            b"name: q\nname: r\noutput_dir: x\nstages: [{kind: rl, steps: 1}]\n",
            "r.yaml:2: name is given twice, first at r.yaml:1",
        ),
        (RL.encode() + b"  steps: 3\n", "r.yaml:6: stages.0.steps is given twice, first at r.yaml:5; keep one"),
        (RL.encode() + b"  loss: &a {tau: *a}\n", "r.yaml:6: an alias that contains itself; write the value out"),
        (
            RL.encode() + b"<<: {seed: 1}\n",
            "r.yaml:6: a key must be plain text; lists, mappings and `<<` cannot be keys",
        ),
        (RL.encode() + b"? [a]\n: 1\n", "r.yaml:6: a key must be plain text; lists, mappings and `<<` cannot be keys"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path, monkeypatch, text, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_bytes(text)
    assert expected in problem("r.yaml")


def test_a_missing_file_names_the_nearest_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart.yaml").write_text(RL)
    (tmp_path / "other.yaml").write_text(RL)
    assert problem("quikstart.yaml") == "quikstart.yaml: no such file; recipes in .: quickstart.yaml"
    assert problem("z.yaml") == "z.yaml: no such file; recipes in .: other.yaml, quickstart.yaml"
    assert problem("nowhere/z.yaml").startswith("nowhere/z.yaml: no such file; ")


def test_a_folder_is_no_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert problem("runs") == "runs: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-2e3", -2000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("10_000", 10_000),
        ("010", 10),
        ("-3", -3),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0x1f", "0x1f"),
        ("1e", "1e"),
        ("'1e-4'", "1e-4"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("./rewards.py:score", "./rewards.py:score"),
    ],
)
def test_scalars(text, value):
    read = parse(text, "r.yaml").data
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["yes", "1e-4", "1:30", "2024-01-01", "null", "", "10_000", "a: b", "=", "◁think▷"])
def test_text_stays_text_when_written(text):
    assert parse(dump({"key": text}), "r.yaml").data == {"key": text}


def test_equal_parts_are_written_out():
    part = {"a": 1}
    assert "&" not in dump({"x": part, "y": part})


def test_an_alias_is_read_as_a_copy(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: q\noutput_dir: x\nstages:\n"
        "- {kind: sft, optimizer: &a {learning_rate: 3e-3}, steps: 3}\n- {kind: rl, optimizer: *a, steps: 3}\n"
    )
    config = load_recipe(path)
    assert config.stages[0].optimizer == config.stages[1].optimizer


def test_a_byte_order_mark_is_left_out(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + RL.encode())
    assert load_recipe(path).name == "q"
