"""Packs the files of a job: our packages, the recipe, and the local files that the recipe names.

In the archive our packages lie at the top, which Ray puts on the import path of driver and actors. The user's files lie
under `job/`, which is on no import path, so that a file `rewards.py` beside a recipe cannot shadow our package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from configs.errors import UserError
from configs.schema import RunConfig
from configs.version import VERSION
from rl.cli.cluster.user_files import named_files, required_files, walk

PACKAGES = ("configs", "kimi_vl", "rewards", "rollouts", "rl")
MOST_BYTES = 400 * 2**20  # Ray keeps archives in the head's memory and takes 500 MiB at most

_JOB = "job"  # the folder of the user's files
_LIMIT_ADVICE = "put large data on a file system that every node sees, and name it in the recipe by its absolute path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """The contents of a job's archive: the user's files by their names in it, our packages, and the job's folder."""

    files: Mapping[str, Path]
    packages: Mapping[str, bytes]  # read at once: the files may change while they are sent; empty where none are sent
    folder: str  # the job's working directory, relative to the top of the archive
    recipe: str  # relative to `folder`

    def write(self, path: Path) -> int:
        """Write the zip archive and return its bytes; the same contents give the same bytes, which Ray sends once.

        Raises UserError if it is larger than the job server accepts.
        """
        size = sum(file.stat().st_size for file in self.files.values())
        if size > MOST_BYTES:
            largest = max(self.files.values(), key=lambda file: file.stat().st_size)
            raise UserError(
                f"the job's files hold {size / 2**20:.0f} MiB (the largest is {largest}), at most "
                f"{MOST_BYTES >> 20} MiB can be sent; {_LIMIT_ADVICE}"
            )
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(self.packages):
                _add(archive, name, self.packages[name])
            for name in sorted(self.files):
                _add(archive, name, self.files[name].read_bytes())
            if self.packages:
                number = VERSION
                _add(archive, f"thinkvl-{number}.dist-info/METADATA", _metadata(number))
        return path.stat().st_size


def make_bundle(recipe: Path, config: RunConfig, *, working_dir: Path | None, with_packages: bool) -> Bundle:
    """Choose the files of a job: those that the recipe names by relative path, or all of `working_dir`.

    Raises UserError where one is missing, or lies where the cluster could not find it.
    """
    if config.model.path != "tiny" and not Path(config.model.path).is_absolute() and Path(config.model.path).exists():
        raise UserError(
            f"model.path = {config.model.path!r} is a folder of this machine, and is not sent; give a hub name, or an "
            f"absolute path that every node sees, such as model.path={Path(config.model.path).resolve()}"
        )
    files: dict[str, Path] = {}
    if working_dir is None:
        named = named_files(config, [recipe.resolve().parent, Path.cwd()])
        # `../data` in a recipe means the same on the cluster: the job starts as many folders down
        depth = max([0, *(PurePosixPath(os.path.normpath(written)).parts.count("..") for written in named)])
        folder, name = "/".join([_JOB, *["here"] * depth]), recipe.name
        files |= {os.path.normpath(f"{folder}/{written}"): path for written, path in named.items()}
    else:
        root = working_dir.resolve()
        if not root.is_dir():
            raise UserError(f"--working-dir {root}: no such folder")
        files |= {f"{_JOB}/{inner}": root / inner for inner in walk(root)}
        base = _base_in(config, recipe.resolve(), root)
        folder, name = (
            os.path.normpath(f"{_JOB}/{base.relative_to(root)}"),
            recipe.resolve().relative_to(base).as_posix(),
        )
    files[f"{folder}/{name}"] = recipe
    packages = read_packages() if with_packages else {}
    return Bundle(files=files, packages=packages, folder=folder, recipe=name)


def read_packages() -> dict[str, bytes]:
    """The source of our packages as this process imports them: file name, such as `rl/cli/main.py`, to contents.

    Raises UserError where a file of a package's name shadows it.
    """
    found = {}
    for package in PACKAGES:
        folder = package_folder(package)
        files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
        found |= {f"{package}/{file.relative_to(folder).as_posix()}": file.read_bytes() for file in files}
    return found


def fingerprint(packages: Mapping[str, bytes]) -> str:
    """A hash (16 hex digits) of the source of our packages."""
    digest = hashlib.sha256()
    for name in sorted(packages):
        if name.endswith(".py"):
            digest.update(f"{name}\0{len(packages[name])}\0".encode() + packages[name])
    return digest.hexdigest()[:16]


def package_folder(package: str) -> Path:
    """The folder that `import package` reads here. Raises UserError where it finds a file of that name instead."""
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations or found.origin is None:
        raise UserError(
            f"`import {package}` finds {found.origin if found else 'nothing'} instead of ThinkVL's package; "
            "rename that file, or take its folder off PYTHONPATH"
        )
    return Path(found.origin).parent


def _base_in(config: RunConfig, recipe: Path, root: Path) -> Path:
    """The folder in `root` that the recipe's paths are relative to: the recipe's own, or `root`."""
    if not recipe.is_relative_to(root):
        raise UserError(_outside(f"the recipe {recipe}", root))
    bases = [recipe.parent, root]
    for written, path in required_files(config, bases).items():
        if not path.resolve().is_relative_to(root):
            raise UserError(_outside(written, root))
        bases = [base for base in bases if (base / written).is_file()]
        if not bases:
            raise UserError(
                f"the recipe names {written!r} relative to one folder and other files relative to another; "
                f"make all of them relative to {recipe.parent}"
            )
    return bases[0]


def _outside(what: str, root: Path) -> str:
    return (
        f"{what} lies outside --working-dir {root}, so it would not be sent; name a folder that holds all of the job's "
        "files, or leave --working-dir out: the files that a recipe names are sent"
    )


def _metadata(number: str) -> bytes:
    """Package metadata, so that `importlib.metadata.version("thinkvl")` works on the cluster."""
    return f"Metadata-Version: 2.1\nName: thinkvl\nVersion: {number}\n".encode()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    archive.writestr(entry, data)
