"""Only files that have an end are read."""

import os
import socket
import threading

import pytest

from configs.files import open_regular, read_bytes


@pytest.fixture
def special(tmp_path):
    """A pipe that nobody writes to, a socket, a folder, a device, and a link to the device."""
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    return [tmp_path / "pipe", tmp_path / "socket", tmp_path / "folder", tmp_path / "zero.png"]


def test_nothing_without_an_end_is_read(special):
    for path in special:
        with pytest.raises(OSError, match=r"must be a file, and is a |Is a directory"):
            read_bytes(path)
        with pytest.raises(OSError, match=r"must be a file, and is a |Is a directory"):
            open_regular(path)


def test_a_pipe_put_in_a_files_place_is_not_waited_for(tmp_path, monkeypatch):
    """Between the look and the opening somebody may change what is there."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"x")
    found = (tmp_path / "file").stat()
    monkeypatch.setattr("pathlib.Path.stat", lambda self: found)
    timer = threading.Timer(5, os._exit, [3])
    timer.start()
    with pytest.raises(OSError, match="must be a file, and is a device, a pipe or a socket"):
        open_regular(tmp_path / "pipe")
    timer.cancel()


def test_a_file_is_read_up_to_the_limit(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_bytes(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(OSError, match="holds more than 4 bytes"):
        read_bytes(tmp_path / "file", limit=4)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "nothing")
