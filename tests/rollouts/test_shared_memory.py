"""Memory that processes share: what another process sees and may write, whose memory it is, and what remains."""

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest

from rollouts.shared_memory import SharedMemory, can_map, copy_with_checksum, parts, probe_memory, room_for
from rollouts.weight_checksums import checksum


def _answer(pipe):
    memory = pipe.recv()
    array = memory.array()
    pipe.send(array.tolist())
    pipe.recv()
    pipe.send((array.tolist(), memory.array() is not None and np.shares_memory(memory.array(), array)))
    array[:] = 9
    pipe.send(array.tolist())


def test_another_process_sees_what_is_written_and_its_own_writes_stay_there():
    here, there = multiprocessing.get_context("fork").Pipe()
    process = multiprocessing.get_context("fork").Process(target=_answer, args=(there,))
    process.start()
    memory = SharedMemory(3)
    memory.array()[:] = [1, 2, 3]
    here.send(memory)
    assert here.recv() == [1, 2, 3]
    memory.array()[:] = [4, 5, 6]
    here.send(None)
    assert here.recv() == ([4, 5, 6], True), "mapped once, while anybody uses it"
    assert here.recv() == [9, 9, 9]
    assert memory.array().tolist() == [4, 5, 6]
    process.join()


def test_a_file_of_the_same_number_that_is_other_memory_is_refused():
    memory = SharedMemory(64)
    other = SharedMemory(64)
    copy = pickle.loads(pickle.dumps(memory))
    assert can_map(copy)
    copy._path, copy._key = other._path, memory._key[::-1]
    with pytest.raises(OSError, match="is other memory here"):
        copy.array()
    assert not can_map(copy)
    copy._path = "/proc/1/fd/none"
    assert not can_map(copy)
    assert can_map(probe_memory())
    assert not can_map(None)


def test_nothing_stays_open_when_it_is_no_longer_needed():
    memory = SharedMemory(1 << 20)
    assert Path(memory._path).exists()
    path = Path(memory._path)
    del memory
    assert not path.exists()


@pytest.mark.parametrize("size", [0, 1, 64, (1 << 20) + 5])
def test_the_checksum_of_a_copy_is_that_of_its_source(size, rng):
    source = rng.integers(0, 256, size).astype(np.uint8)
    target = np.zeros_like(source)
    assert copy_with_checksum(target, source) == checksum(source)
    assert np.array_equal(source, target)


def test_parts_begin_at_aligned_places():
    sizes = [1, 64, 65, 0]
    assert room_for(sizes) == 64 + 64 + 128
    assert [(len(p), p.ctypes.data % 64) for p in parts(SharedMemory(256).array(), sizes)] == [
        (1, 0), (64, 0), (65, 0), (0, 0)
    ]  # fmt: skip
