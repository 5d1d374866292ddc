"""Writes what docs/ says of the code: the keys of a recipe, the metrics, and the symptoms that the doctor knows.

    python docs/generate.py            # after a change of the schema, rl/metrics_table.py or rl/doctor
    python docs/generate.py --check    # exit code 1 where a page differs from the code

A page is written by hand except for what stands between `<!-- table: NAME -->` and `<!-- end -->`. The meaning of a key
is the comment above its field in `configs`, or behind it.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from configs.algorithms import ALGORITHMS
from configs.keys import REQUIRED, Key, describe, is_list, schema_keys, section_of
from configs.schema import RunConfig
from configs.stage import StageConfig
from configs.supervised import SupervisedConfig
from rl import metrics_table
from rl.alarms.table import ALARMS
from rl.doctor.run_checks import CAUSES
from rl.doctor.stacks import WAIT_SIGNS
from rl.doctor.table import MACHINE_CHECKS, RUN_CHECKS, DoctorCheck
from rl.metrics_table import Metric

DOCS = Path(__file__).resolve().parent
PAGES = ("configuration.md", "metrics.md", "troubleshooting.md")
TABLE = re.compile(r"<!-- table: ([\w ]+) -->\n.*?<!-- end -->", re.DOTALL)
WIDTH = 120
ATOM = re.compile(r"`[^`]*`|\[[^\]]*\]\([^)]*\)")  # code and links stay on one line
COMMON = {field.name for field in dataclasses.fields(StageConfig)}
SUPERVISED = {field.name for field in dataclasses.fields(SupervisedConfig)} - COMMON
FIELD = re.compile(r"    (\w+): [^#]*(?:#(.*))?$")


def meanings(section: type) -> dict[str, str]:
    """The comment of each field of a dataclass: the lines above it, or the end of its line."""
    found: dict[str, str] = {}
    above: list[str] = []
    classes = [cls for cls in reversed(section.__mro__) if dataclasses.is_dataclass(cls)]
    for line in (line for cls in classes for line in inspect.getsource(cls).splitlines()):
        if line.startswith("    # "):
            above.append(line.strip("# "))
            continue
        if match := FIELD.match(line):
            found[match[1]] = " ".join([*above, (match[2] or "").strip()]).strip()
        above = []
    return found


def sections() -> dict[str, type]:
    """Every section of a recipe by its class's name, and what all supervised stages share."""
    return {cls.__name__: cls for cls in (*(cls for cls, _ in _keys_by_section()), SupervisedConfig)}


def keys_list(section: type) -> str:
    """The keys of one section, an item each: name, type, default and meaning."""
    items: list[str] = []
    comments = meanings(section)
    for cls, key in _keys_by_section():
        if cls is not StageConfig and issubclass(cls, StageConfig) and key.pattern[-1] in COMMON:
            continue  # listed once, for all kinds of stages
        always_there = section_of(key.annotation) is not None and key.default is not None
        name = key.pattern[-1]
        shared = issubclass(cls, SupervisedConfig) and name in SUPERVISED and not _has_own(cls, name)
        if section is (SupervisedConfig if shared else cls) and not always_there:
            item = _wrap(f"- `{name}` ({_type(key)}; {_default(key)}): {comments[name]}")
            items += [item] if item not in items else []  # a section that stands in several places
    return "\n".join(items)


def _has_own(cls: type, name: str) -> bool:
    """Whether a kind of supervised stage gives a shared key a default and a meaning of its own."""
    return cls is not SupervisedConfig and name in cls.__annotations__


def _wrap(item: str) -> str:
    """The item of a list, in lines of at most `WIDTH` characters."""
    text = ATOM.sub(lambda match: match[0].replace(" ", "\0"), item)
    lines = textwrap.fill(text, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ")


def metrics_list(metrics: tuple[Metric, ...]) -> str:
    """The metrics of one table, an item each: name, unit, meaning and what is healthy."""
    items = [
        f"- `{m.name}` ({m.unit}): {m.meaning}" + (f" *Healthy:* {m.healthy}." if m.healthy else "") for m in metrics
    ]
    return "\n".join(_wrap(item) for item in items)


def algorithms_table() -> str:
    """The parts of each algorithm."""
    rows = ["| algorithm | advantage | normalization | clip_low, clip_high | also |", "|---|---|---|---|---|"]
    for name, row in ALGORITHMS.items():
        low, high = row.clip or (None, None)
        clip = "not clipped" if high is None else f"{'no bound' if low is None else low}, {high}"
        own = f"KL {row.kl.estimator} in the {row.kl.placement}, {row.kl.coef}" if row.kl else ""
        own += f"`rl.overlong_buffer`: {row.overlong_share:g} of the limit" if row.overlong_share else ""
        own += "; `rl.task_sampler.name`: `dynamic`" if row.dynamic_sampling else ""
        rows.append(f"| {name} | `{row.advantages[0]}` | `{row.normalizations[0]}` | {clip} | {own} |")
    return "\n".join(rows)


def replacements_table() -> str:
    """The parts that may replace an algorithm's own."""
    rows = ["| algorithm | advantage | normalization |", "|---|---|---|"]
    for name, row in ALGORITHMS.items():
        advantages, normalizations = (
            ", ".join(f"`{part}`" for part in parts[1:]) or "-" for parts in (row.advantages, row.normalizations)
        )
        rows.append(f"| {name} | {advantages} | {normalizations} |")
    return "\n".join(rows)


def checks_list(checks: tuple[DoctorCheck[Any], ...]) -> str:
    """The checks of the doctor by their symptoms, with the first line of what each looks at."""
    looks = ((check, (check.look.__doc__ or "").partition("\n")[0]) for check in checks)
    return "\n".join(_wrap(f"- {_start(check.symptom)}: **{check.name}**. {look}") for check, look in looks)


def symptoms() -> dict[str, str]:
    """The lists of docs/troubleshooting.md."""
    return {
        "machine checks": checks_list(MACHINE_CHECKS),
        "run checks": checks_list(RUN_CHECKS),
        "causes": "\n".join(_wrap(f"- {_start(row.cause)}. What to do: {row.advice}.") for row in CAUSES),
        "waits": "\n".join(_wrap(f"- {_start(row.waits_for)}. What to do: {row.advice}.") for row in WAIT_SIGNS),
        "alarms": "\n".join(_wrap(f"- {_start(row.title)}. What to do: {row.advice}.") for row in ALARMS),
    }


def _start(text: str) -> str:
    """`text` as the start of a sentence."""
    return text[:1].upper() + text[1:]


def render(page: str) -> str:
    """The page with today's tables."""
    tables = {name: keys_list(cls) for name, cls in sections().items()}
    tables |= {name: metrics_list(table) for name, table in metrics_table.TABLES.items()}
    tables |= {"algorithms": algorithms_table(), "replacements": replacements_table()} | symptoms()
    return TABLE.sub(lambda match: f"<!-- table: {match[1]} -->\n{tables[match[1]]}\n<!-- end -->", page)


def _keys_by_section() -> list[tuple[type, Key]]:
    """Every key with the class that holds it; items of lists are no keys by themselves."""
    holders: dict[tuple[str, ...], Any] = {(): RunConfig}
    found: list[tuple[type, Key]] = []
    for pattern, key in schema_keys().items():
        inner = key.annotation if dataclasses.is_dataclass(key.annotation) else section_of(key.annotation)
        if inner is not None:
            holders[pattern] = inner
        if pattern[-1] != "N" and pattern[:-1] in holders:
            found.append((holders[pattern[:-1]], key))
    return found


def _type(key: Key) -> str:
    if is_list(key.annotation):
        return "a list"
    return "a section, or null" if section_of(key.annotation) else describe(key.annotation)


def _default(key: Key) -> str:
    if key.default is REQUIRED:
        return "*required*"
    if is_list(key.annotation):
        return "default: " + (", ".join(f"`{_item(item)}`" for item in key.default) or "empty")
    return f"default: `{key.default if key.default and isinstance(key.default, str) else json.dumps(key.default)}`"


def _item(item: Any) -> str:
    """An item of a list's default: a text, or the keys of a section that differ from its defaults."""
    if not dataclasses.is_dataclass(item):
        return str(item)
    given = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    shown = {f.name: given[f.name] for f in dataclasses.fields(item) if given[f.name] != f.default and given[f.name]}
    return ", ".join(f"{name}: {value}" for name, value in (shown or {"use": given.get("use")}).items())


def main() -> int:
    """Write the pages, or say which differ."""
    parser = argparse.ArgumentParser(description="write the generated tables of docs/")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page differs")
    check = parser.parse_args().check
    stale = False
    for page in (DOCS / name for name in PAGES):
        written = page.read_text(encoding="utf-8")
        if (rendered := render(written)) == written:
            continue
        stale = True
        if check:
            print(f"docs/{page.name} differs from the code; run `python docs/generate.py`")
        else:
            page.write_text(rendered, encoding="utf-8")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
