"""Checkpoints through damage, crashes inside the write and a full disk."""

import errno
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from rl import checkpoint
from rl.checkpoint import (
    CheckpointError,
    list_checkpoints,
    load_checkpoint,
    random_state,
    replace_folder,
    restore_random_state,
    save_checkpoint,
)


def save(folder, *steps):
    for step in steps:
        save_checkpoint(folder, step, {"x": torch.full((300,), float(step))})


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def loaded_step(folder):
    state, problems = load_checkpoint(folder)
    assert (state["x"] == state["step"]).all()
    return state["step"], problems


def test_what_was_saved_is_loaded(tmp_path):
    state = {"tensor": torch.randn(3), "best": 0.25, "random": random_state(), "nested": {"a": [1, 2]}}
    path = save_checkpoint(tmp_path / "c", 7, state)
    assert path.name == "step-000007.pt"
    loaded, problems = load_checkpoint(tmp_path / "c")
    assert problems == []
    assert loaded["step"] == 7
    assert torch.equal(loaded["tensor"], state["tensor"])
    assert (loaded["best"], loaded["nested"]) == (0.25, {"a": [1, 2]})


def test_no_checkpoint_is_no_mistake(tmp_path):
    assert load_checkpoint(tmp_path / "nothing") == (None, [])


def test_the_newest_two_are_kept(tmp_path):
    save(tmp_path, 8, 9, 10, 11)
    assert names(tmp_path) == ["step-000010.pt", "step-000011.pt"]
    assert loaded_step(tmp_path) == (11, [])


def damage(path, how):
    data = path.read_bytes()
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("this is no checkpoint")
    else:
        path.write_bytes(bytes(len(data)))


@pytest.mark.parametrize("how", ["cut", "empty", "text", "zeros"])
def test_a_damaged_newest_gives_the_one_before_and_says_so(tmp_path, how):
    save(tmp_path, 1, 2)
    damage(tmp_path / "step-000002.pt", how)
    step, problems = loaded_step(tmp_path)
    assert step == 1
    assert len(problems) == 1
    assert "step-000002.pt cannot be read" in problems[0]
    assert "trying the one before" in problems[0]


def test_a_byte_that_flipped_is_damage(tmp_path):
    """The zip's checksum is over the tensor's bytes, and a wrong number must not be trained on."""
    save(tmp_path, 1, 2)
    newest = tmp_path / "step-000002.pt"
    data = bytearray(newest.read_bytes())
    data[data.index(np.float32(2).tobytes() * 50) + 40] ^= 0xFF
    newest.write_bytes(data)
    step, problems = loaded_step(tmp_path)
    assert (step, len(problems)) == (1, 1)


def test_all_damaged_is_an_error_that_says_what_to_do(tmp_path):
    save(tmp_path, 1, 2)
    for path in list_checkpoints(tmp_path):
        damage(path, "cut")
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(tmp_path)
    text = str(error.value)
    assert "step-000001.pt" in text
    assert "step-000002.pt" in text
    assert "Delete them to start RL from its beginning" in text


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch, error):
    save(tmp_path, 1, 2)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    write = torch.save

    def half(state, file):
        write(state, file)
        file.truncate(100)
        raise error

    monkeypatch.setattr(checkpoint.torch, "save", half)
    with pytest.raises(type(error)):
        save(tmp_path, 3)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    try:
        made = subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        made = False
    if not made:
        pytest.skip("only root may mount a small file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_what_was_there(small_disk):
    save(small_disk, 1, 2)
    with pytest.raises((OSError, RuntimeError)):
        save_checkpoint(small_disk, 3, {"x": torch.zeros(1 << 18)})
    assert names(small_disk) == ["step-000001.pt", "step-000002.pt"]
    assert loaded_step(small_disk) == (2, [])
    save(small_disk, 3)
    assert loaded_step(small_disk) == (3, [])


KILLED = """
import os, pathlib, sys
from rl import checkpoint
checkpoint.torch.save = lambda state, file: (file.write(b"half"), file.flush(), os.kill(os.getpid(), 9))
checkpoint.save_checkpoint(pathlib.Path(sys.argv[1]), 3, {})
"""


def test_a_kill_inside_the_write_leaves_what_was_there(tmp_path):
    save(tmp_path, 1, 2)
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)]).returncode == -9
    assert names(tmp_path) == ["step-000001.pt", "step-000002.pt", "step-000003.pt.partial"]
    assert loaded_step(tmp_path) == (2, [])
    save(tmp_path, 3)
    assert names(tmp_path) == ["step-000002.pt", "step-000003.pt"]


def test_the_file_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(checkpoint.os, "fsync", lambda fd: (events.append("fsync"), fsync(fd)))
    monkeypatch.setattr(Path, "replace", lambda self, to: (events.append("rename"), replace(self, to))[1])
    save(tmp_path, 1)
    assert events == ["fsync", "rename", "fsync"], "the file, its name, and the folder that holds the name"


def test_random_generators_go_on_where_they_were():
    state = random_state()
    first = (random.random(), np.random.rand(), torch.rand(3).tolist())
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) != first
    restore_random_state(state)
    assert (random.random(), np.random.rand(), torch.rand(3).tolist()) == first


def folder_of(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_a_folder_is_put_in_place_of_another(tmp_path):
    replace_folder(folder_of(tmp_path / "best.partial", "1"), tmp_path / "best")
    replace_folder(folder_of(tmp_path / "best.partial", "2"), tmp_path / "best")
    assert names(tmp_path) == ["best"]
    assert (tmp_path / "best" / "file").read_text() == "2"


def test_a_folder_half_put_in_place_is_put_right(tmp_path):
    """Killed between the two renames: the old one stands aside, and the next call clears it away."""
    folder_of(tmp_path / "best.old", "1")
    replace_folder(folder_of(tmp_path / "best.partial", "2"), tmp_path / "best")
    assert names(tmp_path) == ["best"]
