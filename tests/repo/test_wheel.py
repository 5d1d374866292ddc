"""What an installation gets."""

import shutil
import subprocess
import sys
import zipfile

import pytest

PACKAGES = ("configs", "kimi_vl", "rewards", "rl", "rollouts")


@pytest.fixture(scope="module")
def in_wheel(root, tracked, tmp_path_factory):
    """The names in the wheel that is built from the tracked files."""
    folder = tmp_path_factory.mktemp("wheel")
    for path in tracked:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, folder / path)
    command = [sys.executable, "-c", "from setuptools.build_meta import build_wheel as b; print(b('.'))"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(folder / done.stdout.split()[-1]) as wheel:
        return set(wheel.namelist())


def test_type_checkers_see_the_annotations_of_every_package(in_wheel):
    assert {f"{package}/py.typed" for package in PACKAGES} <= in_wheel


def test_it_holds_every_module_recipe_and_asset_and_nothing_else(in_wheel, tracked):
    suffixes = (".py", ".yaml", ".typed", ".css", ".js", ".jinja")
    wanted = {str(path) for path in tracked if path.parts[0] in PACKAGES and path.suffix in suffixes}
    own = {name for name in in_wheel if ".dist-info/" not in name}
    assert own == wanted
