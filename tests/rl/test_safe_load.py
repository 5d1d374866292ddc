"""Whatever somebody wrote into a run's folder, reading it runs no code."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemWriter

from configs.errors import UserError
from rl.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from rl.learner.skipped_updates import SkippedUpdates
from rl.safe_load import PlainReader, load_state
from rollouts.types import Completion, Segment


class Payload:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


@pytest.fixture
def payload(tmp_path):
    return Payload(f"touch {tmp_path}/ran")


@pytest.fixture(autouse=True)
def nothing_ran(tmp_path):
    yield
    assert not (tmp_path / "ran").exists()


def test_a_payload_in_a_checkpoint_does_not_run(payload, tmp_path):
    save_checkpoint(tmp_path / "c", 1, {"x": 1})
    save_checkpoint(tmp_path / "c", 2, {"x": payload})
    state, [problem] = load_checkpoint(tmp_path / "c")
    assert state["step"] == 1
    assert "step-000002.pt cannot be read (UnpicklingError: " in problem
    assert "posix.system" in problem
    assert "weights_only" not in problem, "no advice to run it all the same"
    assert "safe_globals" not in problem


def test_a_checkpoint_that_is_a_bare_pickle_does_not_run(payload, tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "step-000001.pt").write_bytes(pickle.dumps(payload))
    with pytest.raises(CheckpointError, match=r"step-000001\.pt cannot be read"):
        load_checkpoint(tmp_path / "c")


def test_a_payload_in_a_skipped_update_does_not_run(payload, tmp_path):
    folder = tmp_path / "skipped" / "step-000001"
    folder.mkdir(parents=True)
    torch.save({"step": 1, "config": payload}, folder / "update-1.pt")
    with pytest.raises(UserError, match=r"update-1\.pt cannot be read \(UnpicklingError: .*posix\.system"):
        SkippedUpdates(tmp_path / "skipped").load(1)


def test_a_payload_in_an_index_of_shards_does_not_run(payload, tmp_path):
    (tmp_path / ".metadata").write_bytes(pickle.dumps(payload))
    with pytest.raises(pickle.UnpicklingError, match=r"posix\.system must not be in an index of shards"):
        PlainReader(tmp_path).read_metadata()


def test_another_object_is_no_index_of_shards(tmp_path):
    (tmp_path / ".metadata").write_bytes(pickle.dumps({"state_dict_metadata": {}}))
    with pytest.raises(pickle.UnpicklingError, match="an index of shards was expected, not dict"):
        PlainReader(tmp_path).read_metadata()


def test_shards_are_read_as_they_were_written(tmp_path):
    saved = {"a/b": torch.randn(3), "c": torch.randn(2, 3).bfloat16(), "d": torch.tensor(7)}
    state_dict_saver.save(saved, storage_writer=FileSystemWriter(tmp_path), no_dist=True)
    found = {name: torch.zeros_like(tensor) for name, tensor in saved.items()}
    state_dict_loader.load(found, storage_reader=PlainReader(tmp_path), no_dist=True)
    assert all(torch.equal(found[name], saved[name]) for name in saved)


def test_what_a_run_saves_is_read_as_it_was(tmp_path):
    completion = Completion(
        token_ids=np.array([1, 2]),
        policy_logprobs=np.array([-0.5, -0.25], np.float32),
        sampler_logprobs=np.array([-0.5, np.nan], np.float32),
        finish_reason="stop",
        segments=(Segment(start=0, stop=2, version=3),),
        routed_experts=np.array([[[1]], [[255]]], np.uint8),
    )
    rest = {"\ud800": "\udfff", "big": 1 << 80, 3: (b"\0\xff", None, [True, 0.1]), "f": np.float64(0.1)}
    torch.save({"c": completion, **rest}, tmp_path / "state.pt")
    found = load_state(tmp_path / "state.pt")
    read = found.pop("c")
    assert found == rest
    assert read.segments == completion.segments
    for name in ("token_ids", "policy_logprobs", "sampler_logprobs", "routed_experts"):
        column, written = getattr(read, name), getattr(completion, name)
        assert (column.dtype, column.tobytes()) == (written.dtype, written.tobytes())


def test_a_zip_that_holds_no_state_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "step-000001.pt", "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(CheckpointError, match=r"step-000001\.pt cannot be read"):
        load_checkpoint(tmp_path)
