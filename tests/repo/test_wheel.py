"""What an installation gets, from the tree and from the source distribution."""

import email
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from configs.version import VERSION

PACKAGES = ("configs", "kimi_vl", "rewards", "rl", "rollouts")


def build(what, folder):
    """The file that the build backend makes of a source folder, as `python -m build` calls it."""
    command = [sys.executable, "-c", f"from setuptools.build_meta import build_{what} as b; print(b('.'))"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def source(root, tracked, tmp_path_factory):
    """The tracked files alone."""
    folder = tmp_path_factory.mktemp("source")
    for path in tracked:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / path, folder / path)
    return folder


@pytest.fixture(scope="module")
def wheel(source):
    return build("wheel", source)


def names_in(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def own(names):
    return {name for name in names if ".dist-info/" not in name}


def test_type_checkers_see_the_annotations_of_every_package(wheel):
    assert {f"{package}/py.typed" for package in PACKAGES} <= names_in(wheel)


def test_it_holds_every_module_recipe_and_asset_and_nothing_else(wheel, tracked):
    suffixes = (".py", ".yaml", ".typed", ".css", ".js", ".jinja")
    wanted = {str(path) for path in tracked if path.parts[0] in PACKAGES and path.suffix in suffixes}
    assert own(names_in(wheel)) == wanted


def test_its_version_is_that_of_the_command_and_the_newest_in_the_changelog(wheel, root):
    (name,) = [name for name in names_in(wheel) if name.endswith(".dist-info/METADATA")]
    with zipfile.ZipFile(wheel) as archive:
        metadata = email.message_from_bytes(archive.read(name))
    assert metadata["Version"] == VERSION
    assert wheel.name == f"thinkvl-{VERSION}-py3-none-any.whl"
    assert metadata["License-Expression"] == "Apache-2.0"
    headings = [line for line in (root / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert any(line.split()[1] == VERSION for line in headings[:2]), headings


def test_the_source_distribution_makes_the_same_wheel(source, wheel, tmp_path):
    with tarfile.open(build("sdist", source)) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert {"LICENSE", "README.md", "pyproject.toml"} <= {path.name for path in unpacked.iterdir()}
    assert names_in(build("wheel", unpacked)) == names_in(wheel)
