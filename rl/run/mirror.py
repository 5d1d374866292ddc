"""A copy of a run's folder under a URL of fsspec (`s3://`, `gs://`, `file://`, ...), for machines that go away.

Files are kept as objects named by the hash of their bytes. `run.json`, which lists the run's files with their hashes,
is renamed into place last: the copy is the one before or the new one, never half of either. Objects that no list names
are deleted afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec

from configs.errors import UserError
from configs.schema import RunConfig
from configs.text import counted, one_line
from rl.checkpoint import replace_folder
from rollouts.tasks.contents import contents_hash

_LIST = "run.json"
_ID = "mirror.id"  # a file of the run and of its copy: two runs under one URL would overwrite each other
_LEFT_OUT = {"lock", ".writable", "end.json"}
_UNFINISHED = (".partial", ".old")
_WRITTEN_ONCE = (".pt", ".safetensors", ".distcp", ".parquet")


def open_mirror(config: RunConfig, say: Callable[[str], None]) -> Mirror | None:
    """The mirror of a recipe, if it has one. Where the run's folder is empty, it is made from the mirror.

    Raises UserError where the mirror cannot be read, and where it holds another run than the folder.
    """
    if config.mirror is None:
        return None
    mirror, folder = Mirror(config.mirror), Path(config.output_dir).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        mirror.check(folder)
    elif files := mirror.pull(folder):
        say(f"{counted(files, 'file')} of the run are from {config.mirror}")
    return mirror


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One file of the run."""

    size: int
    xxh3_128: str


class Mirror:
    """The copy under `url`. Raises UserError where fsspec knows no such URL, or lacks a package for it."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._seen: dict[tuple[str, int, int, int], str] = {}  # (name, inode, size, time) -> hash
        try:
            found: Any = fsspec.core.url_to_fs(url)  # pyright: ignore[reportAttributeAccessIssue]
        except (ImportError, ValueError) as error:
            raise UserError(
                f"mirror = {url!r}: {one_line(error)}; install that package, or take another URL"
            ) from error
        self._fs, self._root = found

    def pull(self, folder: Path) -> int:
        """Make `folder`, which must not exist or be empty, from the copy; the number of its files, 0 without a copy.

        Raises UserError for a copy that is damaged or cannot be read. `folder` is then as it was.
        """
        files = self._guarded("read", self._files)
        if not files:
            return 0
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for name, entry in files.items():
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            self._guarded("read", lambda e=entry, t=target: self._fs.get_file(self._object(e), str(t)))
            if contents_hash(target) != entry.xxh3_128:
                raise UserError(f"mirror = {self._url!r}: {name} is not as it was written; choose another mirror")
        replace_folder(partial, folder)
        return len(files)

    def check(self, folder: Path) -> None:
        """Raise UserError if there is a copy, and it is not of the run in `folder`."""
        files, own = self._guarded("read", self._files), folder / _ID
        if files and not (own.is_file() and _ID in files and contents_hash(own) == files[_ID].xxh3_128):
            raise UserError(
                f"mirror = {self._url!r}: holds another run than {folder}; give each run a URL of its own. To go on "
                "with the run that it holds, set output_dir to a new folder"
            )

    def push(self, folder: Path) -> None:
        """Copy what is new in `folder`. Raises UserError where the URL cannot be written; the copy before stays.

        Raises UserError, too, where the copy is of another run.
        """
        self.check(folder)
        if not (folder / _ID).exists():
            (folder / _ID).write_text(f"{uuid.uuid4().hex}\n", encoding="utf-8")
        with tempfile.TemporaryDirectory(prefix=".mirror-", dir=folder) as aside:
            names = _snapshot(folder, Path(aside))
            self._guarded("written", lambda: self._copy(Path(aside), names))

    def _copy(self, folder: Path, names: list[str]) -> None:
        files = {name: self._entry(folder, name) for name in names}
        there = {entry.xxh3_128 for entry in self._files().values()}  # others may be halves of an upload
        self._fs.makedirs(f"{self._root}/objects", exist_ok=True)
        for name, entry in files.items():
            if entry.xxh3_128 not in there:
                self._fs.put_file(str(folder / name), self._object(entry))
                there.add(entry.xxh3_128)
        text = json.dumps({name: asdict(entry) for name, entry in files.items()}, indent=2)
        self._fs.pipe_file(f"{self._root}/{_LIST}.new", text.encode())
        self._fs.mv(f"{self._root}/{_LIST}.new", f"{self._root}/{_LIST}")
        kept = {entry.xxh3_128 for entry in files.values()}
        for path in self._fs.ls(f"{self._root}/objects", detail=False):
            if PurePosixPath(path).name not in kept:
                self._fs.rm_file(path)

    def _files(self) -> dict[str, _Entry]:
        self._fs.invalidate_cache()
        if not self._fs.exists(f"{self._root}/{_LIST}"):
            return {}
        found = json.loads(self._fs.cat_file(f"{self._root}/{_LIST}"))
        if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in found):
            raise ValueError(f"{_LIST} names a file outside the run's folder")
        return {name: _Entry(**entry) for name, entry in found.items()}

    def _entry(self, folder: Path, name: str) -> _Entry:
        path, state = folder / name, (folder / name).stat()
        key = (name, state.st_ino, state.st_size, state.st_mtime_ns)
        if key not in self._seen:
            self._seen[key] = contents_hash(path)
        return _Entry(size=state.st_size, xxh3_128=self._seen[key])

    def _object(self, entry: _Entry) -> str:
        return f"{self._root}/objects/{entry.xxh3_128}"

    def _guarded(self, what: str, act: Callable[[], Any]) -> Any:
        """`act()`, with UserError for whatever the file system raises: each has exceptions of its own."""
        try:
            return act()
        except Exception as error:
            raise UserError(
                f"mirror = {self._url!r}: cannot be {what} ({type(error).__name__}: {one_line(error)}); the run's "
                "folder on this machine is whole. Check the URL, its credentials and its room"
            ) from error


def _snapshot(folder: Path, aside: Path) -> list[str]:
    """The run's files as they are now, in `aside`; their names.

    Files that are written once are links where the file system has links. Others, which grow, are copied.
    """
    while True:
        try:
            before = _listing(folder)
            for name, (_, links) in before.items():
                target = aside / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.unlink(missing_ok=True)
                if not (links and _linked(folder / name, target)):
                    shutil.copy2(folder / name, target)
            if {n: i for n, (i, _) in _listing(folder).items()} == {n: i for n, (i, _) in before.items()}:
                return sorted(before)
        except FileNotFoundError:  # a folder was replaced meanwhile
            continue


def _linked(path: Path, target: Path) -> bool:
    try:
        os.link(path, target)
    except FileNotFoundError:
        raise
    except OSError:
        return False
    return True


def _listing(folder: Path) -> Mapping[str, tuple[int, bool]]:
    """Name -> (inode, whether it is written once) of each complete file."""

    def walk(inner: Path) -> Iterator[Path]:
        for path in inner.iterdir():
            if path.name.startswith(".mirror-") or path.name.endswith(_UNFINISHED) or path.name in _LEFT_OUT:
                continue
            if path.is_dir():
                yield from walk(path)
            else:
                yield path

    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.suffix in _WRITTEN_ONCE) for path in walk(folder)
    }
