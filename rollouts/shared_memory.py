"""Memory that processes of one node share. It has no name in any folder, so that a kill leaves nothing behind."""

from __future__ import annotations

import mmap
import os
import secrets
import weakref
from pathlib import Path

import numpy as np

ALIGNED = 64  # bytes between which a tensor begins
CHUNK = 256 << 10  # bytes that a processor's cache holds between the copy and the checksum
_KEY = 16  # bytes behind the content, by which a process knows that it has mapped the memory that was meant
_mapped: weakref.WeakValueDictionary[bytes, np.ndarray] = weakref.WeakValueDictionary()  # of others, by key


class SharedMemory:
    """`nbytes` that the process which makes it writes. Its copy in another process, by pickle, maps the same memory.

    What another process writes there stays its own.
    """

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self._key = nbytes, secrets.token_bytes(_KEY)
        file = os.memfd_create("thinkvl-weights")
        weakref.finalize(self, os.close, file)
        self._path = f"/proc/{os.getpid()}/fd/{file}"
        os.ftruncate(file, nbytes + _KEY)
        self._array: np.ndarray | None = np.frombuffer(mmap.mmap(file, nbytes + _KEY), np.uint8)
        self._array[nbytes:] = np.frombuffer(self._key, np.uint8)

    def array(self) -> np.ndarray:
        """The bytes. Another process maps them while anybody there uses the array. Raises OSError where it cannot."""
        whole = self._array if self._array is not None else _mapped.get(self._key)
        if whole is None:
            with Path(self._path).open("rb") as file:
                whole = np.frombuffer(mmap.mmap(file.fileno(), self.nbytes + _KEY, access=mmap.ACCESS_COPY), np.uint8)
            if whole[self.nbytes :].tobytes() != self._key:
                raise OSError(f"{self._path} is other memory here: the process that shares it is not on this node")
            _mapped[self._key] = whole
        return whole[: self.nbytes]

    def __getstate__(self) -> dict[str, object]:
        return {"nbytes": self.nbytes, "_key": self._key, "_path": self._path, "_array": None}


def probe_memory() -> SharedMemory | None:
    """A little memory to try; None where the system has none to share."""
    return SharedMemory(0) if hasattr(os, "memfd_create") else None


def can_map(memory: SharedMemory | None) -> bool:
    """Whether this process can map it: not on another node, and not as another user."""
    try:
        return memory is not None and memory.array() is not None
    except (OSError, ValueError):  # mmap's, for a file that is too short
        return False


def room_for(sizes: list[int]) -> int:
    """Bytes for arrays of these sizes."""
    return sum(_padded(size) for size in sizes)


def parts(array: np.ndarray, sizes: list[int]) -> list[np.ndarray]:
    """The part of each of them."""
    found, at = [], 0
    for size in sizes:
        found.append(array[at : at + size])
        at += _padded(size)
    return found


def copy_with_checksum(target: np.ndarray, source: np.ndarray) -> int:
    """Copy bytes, and hash them while the processor's cache has them."""
    import xxhash  # an engine runs without it where nothing is published

    total = xxhash.xxh3_64()
    for at in range(0, len(source), CHUNK):
        chunk = source[at : at + CHUNK]
        target[at : at + CHUNK] = chunk
        total.update(chunk.data)
    return total.intdigest()


def _padded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED
