"""Boxes and points as models write them, and how well they agree. Pure functions, bounded work."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_REGIONS = 100
_LONGEST = 20_000  # characters
_NUMBER = r"-?\d{1,9}(?:\.\d{0,12})?"
_SEPARATOR = r"(?:\s{0,4},\s{0,4}|\s{1,4})"
_GROUP = re.compile(
    rf"[\[(]\s{{0,8}}({_NUMBER}(?:{_SEPARATOR}{_NUMBER}){{1,3}})\s{{0,4}}[\])]"
    rf"|<(?:box|point)>\s{{0,4}}({_NUMBER}(?:{_SEPARATOR}{_NUMBER}){{1,3}})\s{{0,4}}</(?:box|point)>"
    rf"|<points?\s[^<>]{{0,200}}?\bx\d?=[\"']({_NUMBER})[\"']\s{{1,4}}y\d?=[\"']({_NUMBER})[\"']"
)
_BARE = re.compile(rf"\s*{_NUMBER}(?:{_SEPARATOR}{_NUMBER}){{1,3}}\s*")
_VALUE = re.compile(_NUMBER)
_LABELLED = re.compile(r"^\W{0,4}(?:b?box|bounding box|point|coordinates?|position)\s?[:=]\s?(?=[-\d])", re.IGNORECASE)
_CLICK = re.compile(
    rf"\b\w{{1,20}}\.?(?:click|tap|moveTo|press)\(\s?x\s?=\s?({_NUMBER})\s?,\s?y\s?=\s?({_NUMBER})\s?\)"
)
_FENCE = re.compile(r"^```\w{0,12}|```$")
_BOX_KEYS = ("bbox_2d", "bbox", "box")
_POINT_KEYS = ("point_2d", "point")


@dataclass(frozen=True, slots=True, kw_only=True)
class Region:
    """A box (x1, y1, x2, y2) or a point (x, y), and the label that stood beside it."""

    coordinates: tuple[float, ...]
    label: str = ""

    @property
    def is_point(self) -> bool:
        """True for a point."""
        return len(self.coordinates) == 2


def read_regions(text: str, *, pairs: bool = False) -> list[Region] | None:
    """The boxes or points of `text`, in order; None where there is none, or where one cannot be read.

    `pairs`: points outside JSON are the corners of boxes, two by two.
    JSON (`[{"bbox_2d": [x1, y1, x2, y2], "label": "cat"}]`, `point_2d`), `<box>(x1,y1),(x2,y2)</box>`,
    `<point x="1" y="2">`, and plain brackets. A box's corners must be in order.
    """
    if len(text) > _LONGEST:
        return None
    text = _LABELLED.sub("", _CLICK.sub(r"(\1, \2)", text))
    found = _from_json(text)
    if found is None:
        found = _from_brackets(text, pairs)
    if not found or len(found) > MAX_REGIONS or not all(_is_sound(region.coordinates) for region in found):
        return None
    return found


def scaled(regions: Sequence[Region], width: float, height: float) -> list[Region]:
    """`regions` with x times `width` and y times `height`."""
    return [
        Region(
            coordinates=tuple(v * (width, height)[at % 2] for at, v in enumerate(region.coordinates)),
            label=region.label,
        )
        for region in regions
    ]


def in_unit_square(regions: Sequence[Region]) -> bool:
    """True where every coordinate is in [0, 1]: shares of the image, not pixels."""
    return all(0 <= value <= 1 for region in regions for value in region.coordinates)


def iou(left: Sequence[float], right: Sequence[float]) -> float:
    """Intersection over union of two boxes (x1, y1, x2, y2), in [0, 1]."""
    width = min(left[2], right[2]) - max(left[0], right[0])
    height = min(left[3], right[3]) - max(left[1], right[1])
    shared = max(0.0, width) * max(0.0, height)
    union = _area(left) + _area(right) - shared
    return shared / union if union > 0 else 0.0


def point_fits(point: Sequence[float], target: Sequence[float], radius: float) -> bool:
    """True where `point` is inside the box `target` (edges count), or within `radius` of the point `target`."""
    x, y = point
    if len(target) == 4:
        return target[0] <= x <= target[2] and target[1] <= y <= target[3]
    return math.hypot(x - target[0], y - target[1]) <= radius


def matches(fits: Sequence[Sequence[bool]]) -> int:
    """The largest number of rows that can each have a column of their own in which they are True (Kuhn)."""
    owner: dict[int, int] = {}

    def place(row: int, seen: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in seen:
                seen.add(column)
                if column not in owner or place(owner[column], seen):
                    owner[column] = row
                    return True
        return False

    return sum(place(row, set()) for row in range(len(fits)))


def agreement(golds: Sequence[Region], given: Sequence[Region], score: Callable[[Region, Region], float]) -> float:
    """Mean score over the longer of both lists, each region paired once, the best pairs first; in [0, 1]."""
    pairs = sorted(((score(g, r), i, j) for i, g in enumerate(golds) for j, r in enumerate(given)), reverse=True)
    rows, columns, total = set(), set(), 0.0
    for value, i, j in pairs:
        if i not in rows and j not in columns:
            rows.add(i)
            columns.add(j)
            total += value
    return total / max(len(golds), len(given), 1)


def _from_json(text: str) -> list[Region] | None:
    """None where `text` is no JSON; empty where it is, and an item of it is no region."""
    bare = _FENCE.sub("", text.strip()).strip()
    if bare[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(bare)
    except (ValueError, RecursionError):
        return None
    regions = [_from_item(item) for item in (value if isinstance(value, list) else [value])]
    if isinstance(value, list) and all(isinstance(item, int | float) for item in value):
        regions = [_from_item(value)]
    return [region for region in regions if region is not None] if None not in regions else []


def _from_item(item: Any) -> Region | None:
    label = ""
    if isinstance(item, Mapping):
        keys = [key for key in (*_BOX_KEYS, *_POINT_KEYS) if key in item]
        label = item["label"] if isinstance(item.get("label"), str) else ""
        item = item[keys[0]] if len(keys) == 1 else None
    if not isinstance(item, list) or len(item) not in (2, 4):
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e9 for v in item):
        return None
    return Region(coordinates=tuple(float(v) for v in item), label=" ".join(label.casefold().split()))


def _from_brackets(text: str, pairs: bool) -> list[Region] | None:
    groups: list[tuple[float, ...]] = []
    if _BARE.fullmatch(text):
        groups = [tuple(float(v) for v in _VALUE.findall(text))]
    else:
        for match in _GROUP.finditer(text):
            numbers = _VALUE.findall(match[1] or match[2]) if match[3] is None else (match[3], match[4])
            groups.append(tuple(float(v) for v in numbers))
            if len(groups) > 2 * MAX_REGIONS:
                return None
    if any(len(group) == 3 for group in groups) or len({len(group) for group in groups}) != 1:
        return None
    if pairs and len(groups[0]) == 2 and len(groups) % 2 == 0:
        groups = [(*first, *second) for first, second in zip(groups[::2], groups[1::2], strict=True)]
    return [Region(coordinates=group) for group in groups]


def _is_sound(coordinates: Sequence[float]) -> bool:
    return len(coordinates) == 2 or (coordinates[0] <= coordinates[2] and coordinates[1] <= coordinates[3])


def _area(box: Sequence[float]) -> float:
    return max(0.0, box[2] - box[0]) * max(0.0, box[3] - box[1])
