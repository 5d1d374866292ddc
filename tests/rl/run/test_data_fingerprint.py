"""A run goes on with the files that it began with, or not at all."""

import json
import os
from dataclasses import replace
from functools import partial

import pytest

from configs.data import DataConfig, SourceConfig
from configs.errors import UserError
from configs.model import ModelConfig
from configs.rewards import RewardConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.supervised import SFTConfig
from rl.run import data_fingerprint
from rl.run.data_fingerprint import check_commit, check_files, check_tasks

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
    check_files(config, base / "run", base=base, say=told.append)
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


@pytest.mark.parametrize("name", ["helper.py", "pack/inner.py"])
def test_what_a_reward_or_an_engine_imports_beside_it(base, name):
    (base / "pack").mkdir()
    for file in ("helper.py", "pack/__init__.py", "pack/inner.py"):
        (base / file).write_text("x = 1\n")
    (base / "near.py").write_text("import helper\n")
    (base / "mine.py").write_text("from pack import inner\n")
    stage = RLConfig(steps=1, rewards=REWARDS, engine="mine.py:Mine")
    config = replace(CONFIG, stages=(stage,))
    check(base, config)
    for changed in ("mine.py", name):
        before = (base / changed).read_text()
        (base / changed).write_text(f"{before}y = 2\n")
        with pytest.raises(UserError, match=rf"  {changed}: \d+ bytes"):
            check(base, config)
        (base / changed).write_text(before)
    check(base, config)


def test_a_module_that_is_named(base, monkeypatch):
    (base / "far_module.py").write_text("def f(): pass\n")
    monkeypatch.syspath_prepend(str(base))
    config = replace(CONFIG, data=replace(DATA, verifiers=("far_module:f",)))
    check(base, config)
    (base / "far_module.py").write_text("def f(): ...\n")
    with pytest.raises(UserError, match=r"far_module\.py: \d+ bytes"):
        check(base, config)


@pytest.mark.parametrize("at", [0, -1], ids=["head", "tail"])
def test_a_model_folder_by_the_ends_of_its_files(base, monkeypatch, at):
    monkeypatch.setattr(data_fingerprint, "_SAMPLED", 4)
    (base / "model").mkdir()
    (base / "model" / "a.safetensors").write_bytes(bytes(20))
    (base / "model" / "README.md").write_text("a card")
    config = replace(CONFIG, model=ModelConfig(path="model"))
    check(base, config)
    (base / "model" / "README.md").write_text("another card")
    check(base, config)
    weights = bytearray(20)
    weights[at] = 1
    (base / "model" / "a.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=r"model/a\.safetensors: 20 bytes"):
        check(base, config)


def test_the_tasks_of_each_source(base):
    run = base / "run"
    check(base)
    check_tasks(run, {"tasks of a": {"tasks": 3, "xxh3_128": "ab"}, "tasks of b": {"tasks": 5, "xxh3_128": "cd"}})
    check(base)
    assert sorted(json.loads((run / "inputs.json").read_text())) == sorted([*FILES, "tasks of a", "tasks of b"])
    with pytest.raises(UserError, match=r"  tasks of b: 5 tasks \(cd\) then, 5 tasks \(ef\) now"):
        check_tasks(run, {"tasks of a": {"tasks": 3, "xxh3_128": "ab"}, "tasks of b": {"tasks": 5, "xxh3_128": "ef"}})


@pytest.mark.parametrize("text", ["", "[]", "{", '{"rows.jsonl": 3}', '{"rows.jsonl": {"bytes": []}}', "\xff"])
def test_a_damaged_record_is_an_error_that_names_it(base, text):
    check(base)
    (base / "run" / "inputs.json").write_text(text)
    with pytest.raises(UserError, match=r"inputs\.json"):
        check(base)


def test_a_model_of_the_hub_is_of_the_commit_that_the_run_began_with(base, monkeypatch):
    cached = partial(data_fingerprint.cached_file, cache_dir=base / "hub", local_files_only=True)
    monkeypatch.setattr(data_fingerprint, "cached_file", cached)

    def check_after_download(commit):
        model = base / "hub" / "models--org--name"
        (model / "refs").mkdir(parents=True, exist_ok=True)
        (model / "refs" / "main").write_text(commit)
        (model / "snapshots" / commit).mkdir(parents=True, exist_ok=True)
        (model / "snapshots" / commit / "config.json").write_text("{}")
        check_commit(base / "run", "org/name")

    for _ in range(2):
        check_after_download("a" * 40)
    with pytest.raises(UserError, match=r"org/name on the Hub: commit a{12} then, commit b{12} now"):
        check_after_download("b" * 40)
