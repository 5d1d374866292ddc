"""Checkpoints of supervised stages through damage: a wrong number is never trained on."""

import pytest

from rl.stages.sft_checkpoint import newest_checkpoint, seal_checkpoint


def write(folder, step, sealed=True):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    for name in ("weights.pt", "optimizer.pt", "trainer_state.json"):
        (path / name).write_bytes(f"{name} {step}".encode() * 100)
    if sealed:
        seal_checkpoint(path)
    return path


def test_the_newest_is_kept_alone_once_it_is_whole(tmp_path):
    write(tmp_path, 2)
    newest = write(tmp_path, 10)
    assert newest_checkpoint(tmp_path) == newest
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint-10"]
    (tmp_path / "checkpoint-x").mkdir()
    assert newest_checkpoint(tmp_path).name == "checkpoint-10"


@pytest.mark.parametrize("name", ["weights.pt", "optimizer.pt", "trainer_state.json", "checksums.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "folder"])
def test_damage_gives_the_one_before(tmp_path, name, how):
    write(tmp_path, 2)
    newest = write(tmp_path, 4, sealed=False)
    older = {p.name: p.read_bytes() for p in (tmp_path / "checkpoint-2").iterdir()}
    seal_checkpoint(newest)
    (tmp_path / "checkpoint-2").mkdir()
    for file, data in older.items():
        (tmp_path / "checkpoint-2" / file).write_bytes(data)
    path = newest / name
    data = bytearray(path.read_bytes())
    if how == "gone" or how == "folder":
        path.unlink()
        if how == "folder":
            path.mkdir()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes(data[: len(data) // 2] if how == "cut" else data)
    assert newest_checkpoint(tmp_path).name == "checkpoint-2"
    assert not newest.exists()


def test_one_that_a_kill_or_a_full_disk_cut_short_gives_the_one_before(tmp_path):
    write(tmp_path, 2)
    write(tmp_path, 4, sealed=False)
    assert newest_checkpoint(tmp_path).name == "checkpoint-2"


def test_there_may_be_none(tmp_path):
    assert newest_checkpoint(tmp_path / "nothing") is None
