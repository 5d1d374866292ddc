"""Every test is collected, and no test folder hides a package."""

import re
from collections import Counter
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def python_files(tracked):
    return sorted(path for path in tracked if path.parts[0] == "tests" and path.suffix == ".py")


def test_files_with_tests_are_collected(python_files, root):
    hidden = [
        str(path)
        for path in python_files
        if not path.name.startswith("test_")
        and re.search(r"^ *(async )?def test_", (root / path).read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert not hidden, "pytest collects test_*.py only"


def test_test_files_have_different_names(python_files):
    """Test folders have no `__init__.py`, so two files of one name would be one module."""
    counts = Counter(path.name for path in python_files if path.name != "conftest.py")
    assert [name for name, count in counts.items() if count > 1] == []


def test_test_folders_are_no_packages(python_files):
    """`tests/rl/__init__.py` would make a second package `rl`."""
    assert Path("__init__.py") not in [Path(path.name) for path in python_files]


def test_recipes_are_packaged(tracked, root):
    assert 'configs = ["recipes/**/*.yaml"]' in (root / "pyproject.toml").read_text(encoding="utf-8")
    assert all(path.suffix == ".yaml" for path in tracked if path.parts[:2] == ("configs", "recipes"))
