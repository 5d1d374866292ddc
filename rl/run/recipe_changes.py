"""The keys of a recipe that may change when a run resumes: those that do not affect the result."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from configs.load import plain
from configs.schema import RunConfig
from configs.yaml_io import flatten

# Those of a stage are in the class of its keys, as `MAY_CHANGE`.
MAY_CHANGE = (
    "output_dir",  # a run's folder may be moved
    "mirror",
    "threads",
    "trackers",
    "export",
    "model.gradient_checkpointing",
)
NOT_SET = "not set"  # the value of a key in a recipe that has no such list item or section


def differences(found: RunConfig, wanted: RunConfig) -> dict[str, tuple[object, object]]:
    """The keys whose values differ: (in the run's folder, now). Keys of a stage begin with its name.

    A stage that only one of them has differs in the key `stages`; where only one has the key, the other's value is
    `NOT_SET`. Example: `{"rl.workers": (2, 4)}`.
    """
    both = {stage.name for stage in found.stages} & {stage.name for stage in wanted.stages}
    there, now = _flat(found, both), _flat(wanted, both)
    return {
        key: (there.get(key, NOT_SET), now.get(key, NOT_SET))
        for key in sorted(there.keys() | now.keys())
        if there.get(key, NOT_SET) != now.get(key, NOT_SET) and not _is_empty_above(key, there, now)
    }


def written(value: object) -> str:
    """A value as a recipe writes it, text in quotes."""
    words = {None: "null", True: "true", False: "false", NOT_SET: NOT_SET}
    return words[value] if isinstance(value, bool | str | None) and value in words else repr(value)


def may_change(config: RunConfig, key: str, *, done: Collection[str] = ()) -> bool:
    """Whether a run may resume with another value of this key; an item of a list or mapping counts as the whole.

    The steps of a finished stage (`done`) may not change, since the new value would have no effect.
    """
    name, _, rest = key.partition(".")
    stages = {stage.name: stage for stage in config.stages}
    if name not in stages:
        return re.sub(r"(\.\d+)+$", "", key) in MAY_CHANGE
    if rest == "steps" and name in done:
        return False
    return any(rest == own or rest.startswith(f"{own}.") for own in stages[name].MAY_CHANGE)


def _is_empty_above(key: str, there: Mapping[str, object], now: Mapping[str, object]) -> bool:
    """Whether one recipe leaves a list or section empty of which the other has the keys: these say it all."""
    return any(key not in other and any(name.startswith(f"{key}.") for name in other) for other in (there, now))


def _flat(config: RunConfig, names: Collection[str]) -> dict[str, object]:
    """Every key with its value; `stages` holds the names in their order, and each of `names` its stage's keys."""
    values = plain(config)
    stages = {stage["name"]: stage for stage in values["stages"]}
    kept = {name: stage for name, stage in stages.items() if name in names}
    return flatten({**values, "stages": " -> ".join(stages), **kept})
