"""Checkpoints in the background: training goes on meanwhile, errors come at the next call, one is on its way."""

import errno
import threading

import pytest
import torch
from rl_helpers import make_learner, make_samples

from configs.errors import UserError
from rl import checkpoint
from rl.checkpoint import list_checkpoints, load_checkpoint
from rl.stages.checkpoint_writer import CheckpointWriter


@pytest.fixture
def gate(monkeypatch):
    """`torch.save` waits for it in the middle of a file."""
    opened, begun, original = threading.Event(), threading.Event(), torch.save

    def slow(state, file):
        original(state, file)
        file.flush()
        begun.set()
        assert opened.wait(60)

    monkeypatch.setattr(checkpoint.torch, "save", slow)
    return begun, opened


def writer_of(folder, base):
    return CheckpointWriter(folder / "c", base=str(base), on_written=lambda: None)


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_what_is_written_is_the_state_at_the_call(rng, model, tmp_path, base, gate):
    """The learner trains on while its checkpoint is in the middle of the file."""
    begun, opened = gate
    learner, writer = make_learner(model), writer_of(tmp_path, base)
    learner.update(make_samples(rng, model))
    at_call = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    counts = {"drawn": [1, 2]}
    with writer:
        writer.save(1, learner, {"sampler": counts})
        counts["drawn"].append(3)
        assert begun.wait(60)
        learner.update(make_samples(rng, model))
        assert list_checkpoints(tmp_path / "c") == [], "it has its name once it is complete"
        assert any(not torch.equal(at_call[n], t) for n, t in model.state_dict().items())
        opened.set()
    state, problems = load_checkpoint(tmp_path / "c")
    assert problems == []
    assert all(torch.equal(at_call[name], tensor) for name, tensor in state["learner"]["model"].items())
    assert state["sampler"] == {"drawn": [1, 2]}


def test_one_is_on_its_way_and_the_next_waits(model, tmp_path, base, gate):
    begun, opened = gate
    learner, writer = make_learner(model), writer_of(tmp_path, base)
    with writer:
        writer.save(1, learner, {})
        assert begun.wait(60)
        writer.check()
        second = threading.Thread(target=writer.save, args=(2, learner, {}))
        second.start()
        second.join(0.2)
        assert second.is_alive(), "the first is still being written"
        opened.set()
        second.join(60)
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["step-000001.pt", "step-000002.pt"]


def test_an_error_comes_at_the_next_call_and_the_one_before_stays(model, tmp_path, base, monkeypatch):
    learner, writer = make_learner(model), writer_of(tmp_path, base)
    writer.save(1, learner, {})
    writer.wait()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    writer.save(2, learner, {})
    writer._thread.shutdown()  # wait, without asking for the result
    with pytest.raises(OSError, match="No space left"):
        writer.check()
    writer.check()
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-000001.pt"]


def test_ctrl_c_waits_for_the_checkpoint_on_its_way(model, tmp_path, base, gate):
    begun, opened = gate
    learner, writer = make_learner(model), writer_of(tmp_path, base)

    def interrupted():
        with writer:
            writer.save(1, learner, {})
            assert begun.wait(60)
            threading.Timer(0.2, opened.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in list_checkpoints(tmp_path / "c")] == ["step-000001.pt"]


def test_another_base_is_refused(model, tmp_path, base):
    learner = make_learner(model)
    with writer_of(tmp_path, base) as writer:
        writer.save(3, learner, {})
    assert writer_of(tmp_path, base).restore(learner, print)["step"] == 3
    (base / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(UserError, match=r"model.safetensors is not as it was when the checkpoint of step 3"):
        writer_of(tmp_path, base).restore(learner, print)
