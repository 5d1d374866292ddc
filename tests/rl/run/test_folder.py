"""A run's folder: whose it is, who may write in it, and what is done."""

import dataclasses
import json
import subprocess
import sys
import textwrap

import pytest

from configs import keys
from configs.data import DataConfig, SourceConfig
from configs.errors import UserError
from configs.load import load_recipe
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.rewards import RewardConfig
from configs.rl import RanksConfig, RLConfig
from configs.schema import RunConfig
from configs.stage_kinds import STAGE_KINDS
from configs.supervised import SFTConfig
from rl.pipeline import run
from rl.run.console import PlainConsole
from rl.run.folder import RunFolder, StageRecord, write_json
from rl.run.recipe_changes import MAY_CHANGE, NOT_SET, differences
from rl.run.stage_weights import check_weights, weight_hashes

RECORD = StageRecord(
    name="rl",
    kind="rl",
    seconds=2.5,
    greedy_accuracy=0.9,
    sampled_accuracy=0.8,
    thinking_share=0.7,
    mean_tokens=12.5,
    resumed=True,
)

TWO = (RewardConfig(workers=2), RewardConfig(use="format"))


@pytest.fixture
def config(tmp_path):
    return RunConfig(name="t", output_dir=str(tmp_path / "run"), stages=(RLConfig(steps=3),))


def begin(config):
    """A run that has made a step: from then on its recipe counts."""
    folder = RunFolder.open(config)
    (folder.path / "metrics.jsonl").write_text('{"step": 1}\n')
    return folder


def refusal(config):
    with pytest.raises(UserError) as error:
        RunFolder.open(config)
    assert "output_dir=PATH" in str(error.value), "says what to do"
    return str(error.value)


def test_a_new_folder_keeps_its_recipe(config):
    folder = RunFolder.open(config)
    assert load_recipe(folder.path / "recipe.yaml") == config
    assert sorted(p.name for p in folder.path.iterdir()) == ["recipe.yaml"]
    assert RunFolder.open(config).path == folder.path, "the same run goes on"


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"seed": 4}, "seed: 0 there, 4 now"),
        ({"stages": (RLConfig(steps=3, prompts_per_step=5),)}, "rl.prompts_per_step: 32 there, 5 now"),
        (
            {"stages": (RLConfig(steps=3, optimizer=OptimizerConfig(learning_rate=1e-3)),)},
            "rl.optimizer.learning_rate: 1e-06 there, 0.001 now",
        ),
        ({"stages": (SFTConfig(steps=7), RLConfig(steps=3))}, "stages: 'rl' there, 'sft -> rl' now"),
        (
            {"stages": (RLConfig(steps=3, rewards=(RewardConfig(), RewardConfig(use="format"))),)},
            "rl.rewards.1.use: not set there, 'format' now",
        ),
        (
            {"stages": (RLConfig(steps=3, rewards=(RewardConfig(workers=2),)),)},
            "rl.rewards.0.workers: null there, 2 now",
        ),
    ],
)
def test_another_recipe_is_refused_by_the_keys_that_differ(config, change, line):
    begin(config)
    before = (RunFolder.open(config).path / "recipe.yaml").read_text()
    text = refusal(dataclasses.replace(config, **change))
    assert "holds a run of another recipe" in text
    assert line in text
    assert "output_dir:" not in text
    assert (RunFolder.open(config).path / "recipe.yaml").read_text() == before


def test_a_list_that_was_empty_is_not_named_beside_its_items(config):
    """`data.validation: []` is left out where `data.validation.0.use` and its other keys say the same."""
    validation = DataConfig(validation=(SourceConfig(use="easy_vqa"),))
    found = differences(config, dataclasses.replace(config, data=validation))
    assert "data.validation" not in found
    assert found["data.validation.0.use"] == (NOT_SET, "easy_vqa")
    assert found["data.validation.0.limit"] == (NOT_SET, None)


@pytest.mark.parametrize(
    "change",
    [{"threads": 3}, {"trackers": ()}]
    + [
        {"stages": (RLConfig(**({"steps": 3} | change)),)}
        for change in (
            {"steps": 5},
            {"workers": 1},
            {"worker_deadline": 600.0},
            {"micro_batch_tokens": 1024},
            {"eval_every": 1, "save_every": 1},
            {"engine": "vllm"},
            {"engine": "mine.py:Mine", "engine_options": {"size": 3}},
            {"ranks": RanksConfig(count=2)},
        )
    ]
    + [{"model": ModelConfig(gradient_checkpointing=True)}],
)
def test_what_does_not_change_the_result_may_change_on_resume(config, change):
    begin(config)
    wanted = dataclasses.replace(config, **change)
    folder = RunFolder.open(wanted)
    assert load_recipe(folder.path / "recipe.yaml") == config, "another process may still run with it"
    lines = folder.accept_changes(wanted)
    assert len(lines) == len(differences(config, wanted))
    assert load_recipe(folder.path / "recipe.yaml") == wanted
    [noted] = map(json.loads, (folder.path / "changes.jsonl").read_text().splitlines())
    assert noted["changed"].keys() == differences(config, wanted).keys()
    assert folder.accept_changes(wanted) == []


def test_a_run_without_a_step_may_still_change_its_recipe_and_its_files(config):
    """Whoever mends a reward or a data file after an error gives the same command again."""
    folder = RunFolder.open(config)
    for name in ("inputs.json", "metrics.jsonl"):
        (folder.path / name).write_text("")
    folder.stage("base").mkdir()
    wanted = dataclasses.replace(config, seed=4)
    assert RunFolder.open(wanted).accept_changes(wanted) == []
    assert load_recipe(folder.path / "recipe.yaml") == wanted
    assert sorted(p.name for p in folder.path.iterdir()) == ["metrics.jsonl", "recipe.yaml"], "no base, no inputs"


@pytest.mark.parametrize("kept", ["rl/checkpoints/1", "rl/rollouts/step-000001.parquet"])
def test_a_run_that_has_begun_meanwhile_is_not_overwritten(config, kept):
    wanted = dataclasses.replace(config, seed=4)
    folder = RunFolder.open(config)
    waiting = RunFolder.open(wanted)
    (folder.path / kept).parent.mkdir(parents=True)
    (folder.path / kept).touch()
    with pytest.raises(UserError, match="seed: 0 there, 4 now"):
        waiting.accept_changes(wanted)


def test_more_steps_of_a_stage_that_is_done_are_refused(config):
    RunFolder.open(config).finish(RECORD)
    assert "rl.steps: 3 there, 5 now" in refusal(dataclasses.replace(config, stages=(RLConfig(steps=5),)))


def test_every_key_that_may_change_is_a_key():
    assert all(tuple(key.split(".")) in keys.schema_keys() for key in MAY_CHANGE)
    for name, kind in STAGE_KINDS.items():
        assert all(("stages", "N", name, *key.split(".")) in keys.schema_keys() for key in kind.config.MAY_CHANGE)


def test_a_key_of_another_kind_of_stage_may_not_change(config):
    """More steps of RL may be trained, more of SFT may not: its learning rates were planned for the number."""
    first = SFTConfig(steps=7, name="warm")
    begin(dataclasses.replace(config, stages=(first,)))
    text = refusal(dataclasses.replace(config, stages=(dataclasses.replace(first, steps=8, save_every=3),)))
    assert "warm.steps: 7 there, 8 now" in text
    assert "save_every" not in text


def test_the_users_folder(config, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunFolder.open(dataclasses.replace(config, output_dir="~/runs/x")).path == tmp_path / "runs" / "x"


@pytest.mark.parametrize("name", ["s3://bucket/run", "hf://me/run", "runs/12:30"])
def test_a_folder_that_libraries_take_for_an_address_is_refused(config, monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    assert f"output_dir = {name!r}" in refusal(dataclasses.replace(config, output_dir=name))
    assert list(tmp_path.iterdir()) == []


def test_a_moved_folder_is_the_same_run(config, tmp_path):
    RunFolder.open(config).path.rename(tmp_path / "elsewhere")
    moved = dataclasses.replace(config, output_dir=str(tmp_path / "elsewhere"))
    assert RunFolder.open(moved).path == tmp_path / "elsewhere"


def test_a_folder_that_is_no_run_is_refused(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    assert "is no run" in refusal(config)
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_kill_at_the_first_moment_leaves_a_folder_that_can_be_used(config, tmp_path):
    """Before the recipe was written there may be the lock, the probe and half a recipe."""
    (tmp_path / "run").mkdir()
    for name in ("lock", ".writable", "recipe.yaml.partial"):
        (tmp_path / "run" / name).write_text("name: t")
    assert load_recipe(RunFolder.open(config).path / "recipe.yaml") == config


def test_a_file_in_the_folders_place_is_refused(config, tmp_path):
    (tmp_path / "run").write_text("I am a file")
    assert "cannot be written" in refusal(config)


def test_a_file_in_the_parents_place_is_refused(config, tmp_path):
    (tmp_path / "file").write_text("I am a file")
    text = refusal(dataclasses.replace(config, output_dir=str(tmp_path / "file" / "run")))
    assert "cannot be written (Not a directory)" in text


def test_a_name_that_no_folder_can_have(tmp_path, config):
    assert "cannot be written (embedded null byte)" in refusal(
        dataclasses.replace(config, output_dir=f"{tmp_path}/a\0b")
    )


def test_a_read_only_file_system_is_refused(config, tmp_path):
    """Permissions do not bind root, a read-only mount does."""
    (tmp_path / "run").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", str(tmp_path / "run")]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("only root may mount a read-only file system")
    try:
        assert "Read-only file system" in refusal(config)
    finally:
        subprocess.run(["umount", str(tmp_path / "run")], check=True)


HOLDER = """
    import sys
    from configs.load import load_recipe
    from rl.run.folder import RunFolder
    with RunFolder.open(load_recipe(sys.argv[1])).lock():
        print("held", flush=True)
        sys.stdin.read()
"""


def test_a_second_process_is_locked_out(config):
    folder = RunFolder.open(config)
    command = [sys.executable, "-c", textwrap.dedent(HOLDER), str(folder.path / "recipe.yaml")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {other.pid} is already running in"), folder.lock():
            pass
        other.kill()
        other.wait()
        with folder.lock():
            pass  # the dead process's lock went with it, and its file is no obstacle


def test_the_lock_ends_with_its_block(config):
    folder = RunFolder.open(config)
    for _ in range(2):
        with folder.lock():
            pass
    with pytest.raises(KeyError), folder.lock():
        raise KeyError
    with folder.lock():
        pass


def test_records_of_stages(config):
    folder = RunFolder.open(config)
    assert folder.record("rl") is None
    folder.finish(RECORD)
    assert folder.record("rl") == RECORD
    assert folder.stage("rl") == folder.path / "rl"


def test_json_is_never_half_written(tmp_path, monkeypatch):
    path = tmp_path / "a" / "x.json"
    write_json(path, {"v": 1})
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        write_json(path, {"v": 2})
    assert json.loads(path.read_text()) == {"v": 1}


class TestWeightsOfAFinishedStage:
    @pytest.fixture
    def stage(self, config):
        folder = RunFolder.open(config)
        model = folder.stage("rl") / "model"
        model.mkdir(parents=True)
        for name in ("model-00001.safetensors", "model-00002.safetensors"):
            (model / name).write_bytes(name.encode() * 1000)
        folder.finish(dataclasses.replace(RECORD, weights=weight_hashes(model)))
        return folder, model

    def test_what_the_stage_left_passes(self, stage):
        folder, _ = stage
        [record] = folder.records()
        check_weights(folder, record)

    def test_a_flipped_bit_is_found(self, stage):
        folder, model = stage
        path = model / "model-00002.safetensors"
        data = bytearray(path.read_bytes())
        data[777] ^= 1
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"model-00002\.safetensors has changed since .* or delete .*rl to train"):
            check_weights(folder, folder.records()[0])

    def test_a_run_looks_before_it_starts_anything(self, stage, config, tmp_path):
        _, model = stage
        (model / "model-00001.safetensors").write_bytes(b"other")
        with pytest.raises(UserError, match=r"model-00001\.safetensors has changed"):
            run(config, base=tmp_path, console=PlainConsole())
        assert not (tmp_path / "run" / "base").exists()

    def test_a_missing_file_is_found(self, stage):
        folder, model = stage
        (model / "model-00001.safetensors").unlink()
        with pytest.raises(UserError, match=r"model-00001\.safetensors is missing"):
            check_weights(folder, folder.records()[0])
