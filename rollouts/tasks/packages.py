"""Folders of data that optional packages ship. Their files are read; their code is not run."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from pathlib import Path

import xxhash

from rollouts.tasks.dataset import DataSetError

EXTRA = "pip install 'thinkvl[data]'"


def package_module(source: str, module: str, distribution: str) -> ModuleSpec:
    """Where an installed module is, found without importing it.

    Raises DataSetError that says what to install where `distribution` is missing.
    """
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise DataSetError(f"{source}: needs the package {distribution}: {EXTRA}")
    return spec


def package_folder(source: str, module: str, distribution: str) -> Path:
    """The folder of an installed package. Raises DataSetError as `package_module` does."""
    folders = package_module(source, module, distribution).submodule_search_locations
    if not folders:
        raise DataSetError(f"{source}: {module} is a file, not the package {distribution}: {EXTRA}")
    return Path(folders[0])


def package_file(source: str, folder: Path, name: str) -> Path:
    """The file or folder `name` of a package. Raises DataSetError where another version keeps it elsewhere."""
    if not (folder / name).exists():
        raise DataSetError(f"{source}: {folder} has no {name}: install the version in constraints.txt, {EXTRA}")
    return folder / name


def files_contents(files: Iterable[Path]) -> dict[str, int | str]:
    """The bytes in files and a hash of them, by which a resumed run knows that its data are still the same."""
    digest, size = xxhash.xxh3_128(), 0
    for file in sorted(set(files)):
        data = file.read_bytes()
        digest.update(file.name.encode() + data)
        size += len(data)
    return {"bytes": size, "xxh3_128": digest.hexdigest()}
