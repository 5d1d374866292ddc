"""Whether a run that resumes still has the data and the reward files that it began with, by their contents.

`inputs.json` in the run's folder keeps the size and a 128-bit hash (XXH3) of every file that the recipe names: data
files, task files and plug-ins. Images that rows name are not read, nor are data sets of the Hub.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from configs.data import recipe_verifiers
from configs.errors import UserError
from configs.files import write_text
from configs.schema import RunConfig
from rewards.plugins.loading import plugin_file
from rollouts.tasks.dataset import FORMATS, contents_hash

_LARGE = 1 << 30  # bytes; reading so many takes seconds


def check_data(config: RunConfig, folder: Path, *, base: Path, say: Callable[[str], None]) -> None:
    """Write `inputs.json` if the run begins, or compare it with the files as they are now.

    Files are relative to `base`; one that is missing is left to whoever opens it. Raises UserError where one differs.
    """
    now = {name: _contents(path, say) for name in _named(config) if (path := base / Path(name).expanduser()).is_file()}
    record = folder / "inputs.json"
    if not record.exists():
        write_text(record, json.dumps(now, indent=2, ensure_ascii=False) + "\n")
        return
    began = json.loads(record.read_text(encoding="utf-8"))
    changed = [name for name in now if name in began and began[name] != now[name]]
    if not changed:
        return
    lines = [f"  {name}: {_shown(began[name])} then, {_shown(now[name])} now" for name in changed[:8]]
    more = f"\n  and {len(changed) - 8} more" if len(changed) > 8 else ""
    raise UserError(
        f"{folder}: the run began with other files:\n" + "\n".join(lines) + more + "\n"
        "put the earlier files back to go on with that run, or begin another one with output_dir=PATH; to go on with "
        f"the files as they are now, delete {record}"
    )


def _named(config: RunConfig) -> Iterator[str]:
    """The files that the recipe names, as written there, each once."""
    sources = [source for data in config.all_data for source in (*data.train, *data.validation, *data.held_out)]
    terms = [term for stage in config.rl_stages for term in stage.rewards]
    plugins = (*recipe_verifiers(*config.all_data), *(name for term in terms for name in (term.use, *term.only_for)))
    names = [source.use for source in sources if Path(source.use).suffix in FORMATS]
    names += [file for spec in (*(source.use for source in sources), *plugins) if (file := plugin_file(spec))]
    yield from dict.fromkeys(names)


def _contents(path: Path, say: Callable[[str], None]) -> dict[str, int | str]:
    """Size and hash of a file."""
    size = path.stat().st_size
    if size > _LARGE:
        say(f"reading {path} ({size / _LARGE:.1f} GiB), to know when the run resumes that it is the same")
    return {"bytes": size, "xxh3_128": contents_hash(path)}


def _shown(contents: dict[str, int | str]) -> str:
    return f"{contents['bytes']} bytes ({str(contents['xxh3_128'])[:12]})"
