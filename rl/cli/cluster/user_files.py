"""Finds the local files that a recipe names by relative path, which are sent with a job.

- Data files, and the images that their rows name. A row sends no file outside its data file's own folder.
- Folders that `datasets` loads.
- Python files of tasks, rewards, verifiers and engines; what they import from their own folder; and the files there, or
  beside the recipe, whose names stand in that code.
- Files and folders that stand in the options of task files and engines.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from configs.data import SourceConfig
from configs.errors import UserError
from configs.files import open_regular
from configs.json_io import parse_json
from configs.schema import RunConfig
from rewards.plugins.loading import plugin_file
from rl.run.named_files import all_sources, code_files, data_files, imports_beside, option_values, texts_in_code
from rollouts.tasks.columns import known_columns
from rollouts.tasks.image_cells import image_items, image_path
from rollouts.tasks.source import BUILT_IN

LEFT_OUT = ("runs", "venv", "__pycache__", "node_modules", "build", "dist")  # and what begins with a dot

_LONGEST_NAME = 1024  # characters


def required_files(config: RunConfig, bases: Sequence[Path]) -> dict[str, Path]:
    """The data files and code that a run needs: path as written, relative to one of `bases` -> local file.

    Raises UserError where one is missing.
    """
    return {name: _find(name, bases) for name in (*data_files(config), *code_files(config)) if _is_relative(name)}


def named_files(config: RunConfig, bases: Sequence[Path]) -> dict[str, Path]:
    """All files to send, the required ones and those that they refer to: path as written -> local file."""
    required = required_files(config, bases)
    named, sources, code = dict(required), data_files(config), []
    for written, file in required.items():
        if written in sources:  # a missing image is a bad row, which the run counts
            images = (image for image in images_in_rows(file, sources[written]) if is_inside(file.parent, image))
            named |= {_beside(written, image): file.parent / image for image in images}
        else:
            code.append(written)
            named |= _code(written, file, bases)
    for source in all_sources(config):
        if source.use not in BUILT_IN and source.use not in named and plugin_file(source.use) is None:
            named |= _file_or_folder(source.use, [(Path(), base) for base in bases])
    folders = dict.fromkeys([Path(), *(Path(written).parent for written in code)])
    for text in option_values(config):
        named |= _file_or_folder(text, [(folder, base) for folder in folders for base in bases])
    return named


def _code(written: str, file: Path, bases: Sequence[Path]) -> dict[str, Path]:
    """A Python file, what it imports from its own folder, and the files that stand in this code.

    Code may look for a file beside itself, or beside the recipe and in the folder that the run starts in.
    """
    code = {_beside(written, path.relative_to(file.parent)): path for path in (file, *imports_beside(file))}
    found = dict(code)
    for name, path in code.items():
        for text in filter(_is_relative, texts_in_code(path)):
            places = [(_beside(name, text), path.parent), *((text, base) for base in bases)]
            found |= {there: folder / text for there, folder in reversed(places) if is_inside(folder, text)}
    return found


def _file_or_folder(text: str, places: Sequence[tuple[Path, Path]]) -> dict[str, Path]:
    """The file of that name, or all files of the folder but hidden ones, in `places`: folder from a base, base."""
    found: dict[str, Path] = {}
    for folder, base in places if _is_relative(text) else ():
        path, written = base / folder / text, str(folder / text)
        if path.is_file():
            found.setdefault(written, path)
        elif path.is_dir():
            found |= {f"{written}/{inner}": path / inner for inner in walk(path)}
    return found


def images_in_rows(data: Path, source: SourceConfig) -> set[str]:
    """The relative image paths in the rows of a data file; bad rows are skipped here and counted by the run."""
    images: set[str] = set()
    for row in _json_rows(data) if data.suffix == ".jsonl" else path_rows(data, source):
        names = {name for group in _image_columns(tuple(row), source) for name in group}
        items = [item for name in names for item in image_items(row[name])]
        images |= {path for path in map(image_path, items) if path and _is_relative(path)}
    return images


def _image_columns(names: tuple[str, ...], source: SourceConfig) -> Sequence[Sequence[str]]:
    """Groups of columns that hold images, or a video."""
    known = known_columns(names, source.columns)
    return [*known.images, [known.fields["video"]]] if "video" in known.fields else known.images


def _json_rows(data: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file."""
    with open_regular(data) as lines:
        for line in lines:
            try:
                row = parse_json(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def path_rows(data: Path, source: SourceConfig) -> Iterator[dict[str, Any]]:
    """The image columns of a Parquet file as far as they hold text, or `path` in a struct: never the images' bytes."""
    try:
        file = pq.ParquetFile(data)
    except (pa.ArrowException, OSError):
        return  # the run says what is wrong with it
    wanted = {name for group in _image_columns(tuple(file.schema_arrow.names), source) for name in group}
    leaves = [file.schema.column(i) for i in range(len(file.schema))]
    texts = [leaf.path for leaf in leaves if leaf.path.split(".")[0] in wanted and leaf.name != "bytes"]
    if texts:
        for batch in file.iter_batches(columns=texts):
            yield from batch.to_pylist()


def is_inside(folder: Path, name: str) -> bool:
    """Whether `name` is a file inside `folder` and not hidden.

    No other file is sent, even if a row or code names it by `..` or a link.
    """
    try:
        path, root = (folder / name).resolve(), folder.resolve()
        inside = path.is_relative_to(root) and path.is_file()
        return inside and not any(part.startswith(".") for part in path.relative_to(root).parts)
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def walk(root: Path) -> Iterator[str]:
    """Every file under `root`, except hidden ones, `LEFT_OUT`, and links that lead out of it."""
    for place, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in LEFT_OUT)
        for name in names:
            path = Path(place) / name
            if not name.startswith(".") and path.is_file() and path.resolve().is_relative_to(root.resolve()):
                yield path.relative_to(root).as_posix()


def _is_relative(path: str) -> bool:
    """Whether a text can be the name of a file that is sent."""
    short = 0 < len(path) < _LONGEST_NAME and not any(character in path for character in "\0\n")
    return (
        short and not path.startswith(("/", "~", "data:")) and "://" not in path and Path(path).name not in ("", "..")
    )


def _find(written: str, bases: Sequence[Path]) -> Path:
    found = next((base / written for base in bases if (base / written).is_file()), None)
    if found is None:
        looked = " and in ".join(dict.fromkeys(str(base) for base in bases))
        raise UserError(f"the recipe names {written!r}, but there is no such file in {looked}")
    return found


def _beside(written: str, name: str | Path) -> str:
    """The path of `name`, a file beside `written`, relative to the same folder as `written`."""
    return str(PurePosixPath(written).parent / name)
