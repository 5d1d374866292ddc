"""Where a stage's key stands: `rl.steps` for a person, `("stages", 2, "steps")` in the document.

The schema's path also holds the stage's kind, since that decides which keys there are: `("stages", 2, "rl", "steps")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from configs.stage_kinds import STAGE_KINDS
from configs.yaml_io import KeyPath, dotted


def in_document(path: KeyPath) -> KeyPath:
    """The schema's path without the kind."""
    return (*path[:2], *path[3:]) if _below_stage(path) else path


def in_schema(path: KeyPath, data: Any) -> KeyPath:
    """A path of the document with the kind of its stage; as it is where the stage tells no kind that there is."""
    stage = _stage_at(path, data)
    kind = stage.get("kind") if isinstance(stage, dict) else None
    return (*path[:2], kind, *path[2:]) if len(path) > 2 and kind in STAGE_KINDS else path


def shown(path: KeyPath, data: Any) -> str:
    """The schema's path as a person writes it: `rl.steps`, by the stage's name."""
    if not _below_stage(path):
        return dotted(path)
    stage = _stage_at(path, data)
    name = (stage.get("name") if isinstance(stage, dict) else None) or path[2]
    return dotted((str(name), *path[3:]))


def suggestions(near: Sequence[KeyPath], data: Any) -> list[str]:
    """Keys of the schema as a person may write them; for a key of any stage (`N`), that of each stage of the kind."""
    found: list[str] = []
    for path in near:
        if path[:2] == ("stages", "N") and len(path) > 2:
            places = [place for place in _places(data).values() if data["stages"][place].get("kind") == path[2]]
            found += [shown(("stages", place, *path[2:]), data) for place in places]
        else:
            found.append(shown(path, data))
    return found


def by_name(parts: KeyPath, data: Any) -> KeyPath:
    """A key of the command line as a path of the document: `rl.steps`, or `stages.rl.steps`.

    The place of the stage in the list may stand for its name. Raises LookupError for a stage that there is not.
    """
    if (place := _places(data).get(str(parts[0]))) is not None:
        return ("stages", place, *parts[1:])
    if parts[0] != "stages" or len(parts) == 1 or isinstance(parts[1], int):
        return parts
    if parts[1] not in _places(data):
        there = ", ".join(_places(data)) or "none"
        raise LookupError(f"no stage is called {parts[1]!r}; the recipe's stages: {there}")
    return ("stages", _places(data)[str(parts[1])], *parts[2:])


def _places(data: Any) -> dict[str, int]:
    """The stages' places in the list, by name."""
    stages = data.get("stages") if isinstance(data, dict) else None
    items = enumerate(stages) if isinstance(stages, list) else ()
    return {str(item.get("name") or item.get("kind")): place for place, item in items if isinstance(item, dict)}


def _below_stage(path: KeyPath) -> bool:
    return len(path) > 2 and path[0] == "stages" and path[2] in STAGE_KINDS


def _stage_at(path: KeyPath, data: Any) -> Any:
    """The stage that a path leads to or into; None where there is none."""
    stages = data.get("stages") if isinstance(data, dict) else None
    if len(path) < 2 or path[0] != "stages" or not isinstance(stages, list) or not isinstance(path[1], int):
        return None
    return stages[path[1]] if path[1] < len(stages) else None
