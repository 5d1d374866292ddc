"""A small disk that is a real one, where this user may mount it."""

import subprocess

import pytest

from rl.doctor import machine


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """`small_disk(megabytes)` is a folder on a disk of that size: a tmpfs, or where none can be mounted a stand-in."""
    mounted = []

    def make(megabytes):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, check=False).returncode == 0
        except OSError:
            done = False
        if done:
            mounted.append(folder)
        else:
            usage = machine.shutil.disk_usage(tmp_path)._replace(free=megabytes * 2**20)
            monkeypatch.setattr(machine.shutil, "disk_usage", lambda _path: usage)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=False)
