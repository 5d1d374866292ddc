"""Checks that a resumed run has the data, code and model that it began with, by the hashes of their contents.

`inputs.json` in the run's folder keeps a 128-bit hash (XXH3) of

- every data file and Python file that the recipe names, and what these import from their own folders;
- the tasks of every source, images included, so that an image file or a data set of the Hub cannot change either;
- the files of a model's folder: their size, first and last bytes; of a model on the Hub the commit.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import xxhash
from transformers.utils.hub import cached_file, extract_commit_hash

from configs.errors import UserError
from configs.files import write_text
from configs.json_io import read_json
from configs.schema import RunConfig
from rl.run.named_files import code_files, data_files, imports_beside, module_files
from rollouts.tasks.contents import contents_hash

Contents = Mapping[str, int | str]  # the hash, and how many bytes or tasks it is of; or a commit of the Hub

_LARGE = 1 << 30  # bytes; reading so many takes seconds
_SAMPLED = 1 << 20  # bytes of each end of a model's file


def check_files(config: RunConfig, folder: Path, *, base: Path, say: Callable[[str], None]) -> None:
    """Write `inputs.json` if the run begins, or compare it with the files as they are now.

    Files are relative to `base`; a missing file is reported by the code that opens it. Raises UserError if one differs.
    """
    named = dict(_named(config, base))
    now = {name: _contents(path, say) for name, path in named.items()}
    if config.model.path != "tiny":
        model = base / Path(config.model.path).expanduser()
        files = sorted(file for file in model.glob("[!.]*") if file.is_file() and file.suffix != ".md")
        now |= {f"{config.model.path}/{file.name}": _sampled(file) for file in files}
    _compare(folder / "inputs.json", now)


def check_tasks(folder: Path, contents: Mapping[str, Contents]) -> None:
    """Check the tasks of each source in the same way, after they were read."""
    _compare(folder / "inputs.json", contents)


def check_commit(folder: Path, model: str) -> None:
    """Check in the same way that a model on the Hub, once downloaded, is of the commit that the run began with."""
    if not Path(model).is_dir():
        commit = extract_commit_hash(cached_file(model, "config.json"), None)
        _compare(folder / "inputs.json", {f"{model} on the Hub": {"commit": commit}} if commit else {})


def _compare(record: Path, now: Mapping[str, Contents]) -> None:
    began = read_json(record, dict[str, dict[str, int | str]]) if record.exists() else {}
    changed = [name for name in now if name in began and began[name] != now[name]]
    if not changed:
        if now.keys() - began.keys():
            write_text(record, json.dumps({**began, **now}, indent=2, ensure_ascii=False) + "\n")
        return
    lines = [f"  {name}: {_shown(began[name])} then, {_shown(now[name])} now" for name in changed[:8]]
    more = f"\n  and {len(changed) - 8} more" if len(changed) > 8 else ""
    raise UserError(
        f"{record.parent}: the run began with other files:\n" + "\n".join(lines) + more + "\n"
        "put the earlier files back to go on with that run, or begin another one with output_dir=PATH; to go on with "
        f"the files as they are now, delete {record}"
    )


def _named(config: RunConfig, base: Path) -> Iterator[tuple[str, Path]]:
    """The files that the recipe names, and those that its code imports from beside it: name in the record, file."""
    for name in (*data_files(config), *code_files(config)):
        file = base / Path(name).expanduser()
        if file.is_file():
            yield name, file
            if file.suffix == ".py":
                beside = imports_beside(file)
                yield from ((str(Path(name).parent / path.relative_to(file.parent)), path) for path in beside)
    yield from ((str(path), path) for path in module_files(config))


def _contents(path: Path, say: Callable[[str], None]) -> Contents:
    """Size and hash of a file."""
    size = path.stat().st_size
    if size > _LARGE:
        say(f"reading {path} ({size / _LARGE:.1f} GiB), to know when the run resumes that it is the same")
    return {"bytes": size, "xxh3_128": contents_hash(path)}


def _sampled(path: Path) -> Contents:
    """Size of a file, and the hash of its two ends: weights are too large to read in full at every start."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_SAMPLED)
        file.seek(max(len(head), size - _SAMPLED))
        return {"bytes": size, "xxh3_128": xxhash.xxh3_128_hexdigest(head + file.read(_SAMPLED))}


def _shown(contents: Contents) -> str:
    if "commit" in contents:
        return f"commit {str(contents['commit'])[:12]}"
    what = next(f"{contents[unit]} {unit}" for unit in ("bytes", "tasks") if unit in contents)
    return f"{what} ({str(contents['xxh3_128'])[:12]})"
