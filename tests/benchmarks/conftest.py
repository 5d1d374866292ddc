"""The benchmark scripts are no package: their folder goes onto the path, as it is when one of them runs."""

import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(FOLDER))


@pytest.fixture(scope="session")
def folder():
    return FOLDER
