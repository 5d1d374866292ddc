"""Every file that a recipe names, and what the code among them imports from its own folder."""

import pytest

from configs.data import DataConfig, SourceConfig
from configs.rewards import RewardConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.supervised import SFTConfig
from rl.run.named_files import code_files, data_files, imports_beside, module_files, option_values, texts_in_code


@pytest.fixture
def write(tmp_path):
    def write(name, text=""):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    return write


def test_all_that_a_recipe_names():
    own = DataConfig(train=(SourceConfig(use="stage.jsonl"),))
    data = DataConfig(
        train=(
            SourceConfig(use="rows.jsonl"),
            SourceConfig(use="t.py:tasks", options={"table": ["a.csv", {"b": "c"}]}),
        ),
        held_out=(SourceConfig(use="held.parquet", options={"verifier": "own.py:check"}), SourceConfig(use="org/name")),
        verifiers=("far.py:check", "json:dumps", "no_such_module:f"),
    )
    rewards = (RewardConfig(use="verifier"), RewardConfig(use="trl:brief.py:f", only_for=("near.py:check",)))
    rl = RLConfig(steps=1, rewards=rewards, engine="e.py:Mine", engine_options={"config": "e.json", "n": 3})
    config = RunConfig(name="r", output_dir="run", data=data, stages=(SFTConfig(steps=1, data=own), rl))
    assert sorted(data_files(config)) == ["held.parquet", "rows.jsonl", "stage.jsonl"]
    assert sorted(code_files(config)) == ["brief.py", "e.py", "far.py", "near.py", "own.py", "t.py"]
    assert [file.parent.name for file in module_files(config)] == ["json"]
    assert sorted(option_values(config)) == ["a.csv", "c", "e.json", "own.py:check"]


def test_imports_beside_a_file_however_they_are_written(write, tmp_path):
    main = write(
        "main.py",
        "import json, plain\nimport pack.inner as inner\nfrom other import name\nimport importlib\n"
        "def f():\n    import late\n    importlib.import_module('by_name')\n    __import__('by_hand')\n",
    )
    write("plain.py", "import second\nimport main\n")
    write("pack/__init__.py")
    write("pack/inner.py", "from . import near\nfrom .deep import leaf\nfrom .. import nothing\n")
    for name in ("second", "other", "late", "by_name", "by_hand", "pack/near", "pack/deep/leaf", "unused", "pack/no"):
        write(f"{name}.py")
    found = [path.relative_to(tmp_path).as_posix() for path in imports_beside(main)]
    assert found == [
        "by_hand.py",
        "by_name.py",
        "late.py",
        "other.py",
        "pack/__init__.py",
        "pack/deep/leaf.py",
        "pack/inner.py",
        "pack/near.py",
        "plain.py",
        "second.py",
    ]


@pytest.mark.parametrize("text", ["def f(:", "\0", "(" * 5000, "\xff"])
def test_what_is_no_python_imports_nothing(write, text):
    assert imports_beside(write("a.py", text)) == []
    assert texts_in_code(write("a.py", text)) == []


def test_texts_in_code(write):
    file = write("a.py", "'''doc'''\nfrom pathlib import Path\nrows = Path(__file__).with_name('rows.csv')\nn = 3\n")
    assert texts_in_code(file) == ["doc", "rows.csv"]
