"""A run goes on with the files that it began with, or not at all."""

import json
import os
from dataclasses import replace

import pytest

from configs.data import DataConfig, SourceConfig
from configs.errors import UserError
from configs.rewards import RewardConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.sft import SFTConfig
from rl.run import data_fingerprint
from rl.run.data_fingerprint import check_data

DATA = DataConfig(
    train=(SourceConfig(use="rows.jsonl"), SourceConfig(use="tasks.py:tasks"), SourceConfig(use="digit_sums")),
    held_out=(SourceConfig(use="held.parquet", options={"verifier": "own.py:check"}), SourceConfig(use="org/name")),
    verifiers=("far.py:check", "package:check"),
)
REWARDS = (RewardConfig(use="verifier"), RewardConfig(use="trl:brief.py:f", only_for=("near.py:check",)))
CONFIG = RunConfig(name="r", output_dir="run", data=DATA, stages=(RLConfig(steps=1, rewards=REWARDS),))
FILES = ("rows.jsonl", "held.parquet", "tasks.py", "own.py", "far.py", "brief.py", "near.py")


@pytest.fixture
def base(tmp_path):
    for name in FILES:
        (tmp_path / name).write_text(f"contents of {name}")
    (tmp_path / "run").mkdir()
    return tmp_path


def check(base, config=CONFIG):
    told = []
    check_data(config, base / "run", base=base, say=told.append)
    return told


def test_every_file_that_the_recipe_names_is_kept(base):
    assert check(base) == []
    assert sorted(json.loads((base / "run" / "inputs.json").read_text())) == sorted(FILES)
    assert check(base) == []


@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused_with_both_values(base, name):
    check(base)
    before = (base / name).stat()
    (base / name).write_text("other")
    os.utime(base / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    size = len(f"contents of {name}")
    with pytest.raises(UserError, match=rf"{name}: {size} bytes \(\w+\) then, 5 bytes \(\w+\) now") as error:
        check(base)
    text = str(error.value)
    assert all(advice in text for advice in ("put the earlier files back", "output_dir=PATH", "inputs.json"))
    (base / name).write_text(f"contents of {name}")
    assert check(base) == []


def test_one_byte_of_the_same_size_is_enough(base):
    check(base)
    (base / "rows.jsonl").write_text("Contents of rows.jsonl")
    with pytest.raises(UserError, match="the run began with other files"):
        check(base)


def test_going_on_on_purpose(base):
    check(base)
    (base / "rows.jsonl").write_text("other")
    (base / "run" / "inputs.json").unlink()
    assert check(base) == []
    assert check(base) == []


def test_a_missing_file_is_for_its_reader_to_tell(base):
    check(base)
    (base / "rows.jsonl").unlink()
    assert check(base) == []


def test_a_moved_folder_is_the_same_run(base, tmp_path_factory):
    check(base)
    elsewhere = tmp_path_factory.mktemp("moved") / "b"
    base.rename(elsewhere)
    assert check(elsewhere) == []
    base.mkdir()


def test_a_recipe_without_rl(base):
    assert check(base, replace(CONFIG, stages=(SFTConfig(steps=1),))) == []


def test_reading_long_is_told(base, monkeypatch):
    monkeypatch.setattr(data_fingerprint, "_LARGE", 20)
    assert [line.split(" (")[0] for line in check(base)] == [
        f"reading {base / 'rows.jsonl'}",
        f"reading {base / 'held.parquet'}",
    ]
