"""Where something is in an image: boxes by intersection over union, points by lying in a box or near a point.

`box(iou=0.5)` and `point(radius=10)`. Several regions must pair up one to one with those of the reference; one too
many is wrong, so that a flood of boxes earns nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rewards.extraction import Extraction, extract_answer, split_thinking, visible
from rewards.types import Task, VerdictKind
from rewards.verifiers.base import ExtractingVerifier
from rewards.verifiers.geometry import Region, agreement, in_unit_square, iou, matches, point_fits, read_regions, scaled
from rewards.verifiers.verdicts import Found, bad_reference, no_answer

_COORDINATES = ("auto", "thousand")
_BODY = 20_000  # characters
_MARKS = re.compile(r"<\|(box|object_ref|quad)_(?:start|end)\|>")
_HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|possibly|not|isn't|neither)\b|不是|不在", re.IGNORECASE)

_DENIED = re.compile(r"\W{0,3}(?:text\s?\{\s?)?(?:not|neither|不是|不在)(?![A-Za-z])", re.IGNORECASE)


class BoxVerifier(ExtractingVerifier):
    """Right where as many boxes as in the reference pair up with it, each with an IoU of at least `iou`.

    `coordinates`: `auto` takes shares of the image where all numbers of one side alone are in [0, 1], else the
    reference's units; `thousand` takes the response's numbers as thousandths of the image. With `partial=true` the mean
    IoU is the score of a wrong answer too.
    """

    lists_are_answers = True

    def __init__(self, *, iou: float = 0.5, coordinates: str = "auto", partial: bool = False) -> None:
        if not 0 < iou <= 1:
            raise ValueError(f"iou = {iou}: must be greater than 0 and at most 1")
        _check_coordinates(coordinates)
        self._iou, self._coordinates, self._partial = iou, coordinates, partial

    def extract(self, response: str) -> Extraction:
        """The text of the regions."""
        return _answer(response)

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        golds = read_regions(reference, pairs=True)
        if golds is None or any(gold.is_point or iou(gold.coordinates, gold.coordinates) == 0 for gold in golds):
            return bad_reference(f"{reference[:80]!r} must be boxes [x1, y1, x2, y2] with an area")
        given = _given(extraction, golds, task, self._coordinates, pairs=True)
        if isinstance(given, Found):
            return given
        if any(region.is_point for region in given):
            return no_answer(f"{extraction.rule}/not-boxes")
        fits = [[_score(gold, box) >= self._iou for box in given] for gold in golds]
        right = len(given) == len(golds) == matches(fits)
        mean = agreement(golds, given, _score)
        kind = VerdictKind.CORRECT if right else VerdictKind.WRONG
        score = min(mean, 1.0) if self._partial and not right else float(right)
        return Found(kind=kind, rule=f"{extraction.rule}/iou", detail=f"{mean:.4f}", score=score)


class PointVerifier(ExtractingVerifier):
    """Right where as many points as in the reference pair up with it: inside its box, or within `radius` of its point.

    `radius` is in the units of the reference. `coordinates` as in `BoxVerifier`.
    """

    lists_are_answers = True

    def __init__(self, *, radius: float = 0.0, coordinates: str = "auto") -> None:
        if radius < 0:
            raise ValueError(f"radius = {radius}: must be 0 or more")
        _check_coordinates(coordinates)
        self._radius, self._coordinates = radius, coordinates

    def extract(self, response: str) -> Extraction:
        """The text of the regions."""
        return _answer(response)

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        golds = read_regions(reference)
        if golds is None:
            return bad_reference(f"{reference[:80]!r} must be points [x, y] or boxes [x1, y1, x2, y2]")
        given = _given(extraction, golds, task, self._coordinates)
        if isinstance(given, Found):
            return given
        if not all(region.is_point for region in given):
            return no_answer(f"{extraction.rule}/not-points")
        fits = [[self._fits(gold, point) for point in given] for gold in golds]
        right = len(given) == len(golds) == matches(fits)
        kind = VerdictKind.CORRECT if right else VerdictKind.WRONG
        return Found(kind=kind, rule=f"{extraction.rule}/point")

    def _fits(self, gold: Region, point: Region) -> bool:
        return _same_label(gold, point) and point_fits(point.coordinates, gold.coordinates, self._radius)


def _check_coordinates(name: str) -> None:
    if name not in _COORDINATES:
        raise ValueError(f"coordinates = {name!r}: must be one of {', '.join(_COORDINATES)}")


def _answer(response: str) -> Extraction:
    """The answer span: special tokens around boxes become tags, and JSON may have many lines."""
    response = _MARKS.sub(lambda m: f"<{m[1]}>", visible(response[-100_000:]))
    found = extract_answer(response)
    if found.answer is None or found.rule in ("box", "tag", "json"):
        return found
    body = split_thinking(response).answer_text[-_BODY:]
    fence = body.rfind("```", 0, max(body.rfind("```"), 0))
    if fence >= 0:
        return Extraction(answer=body[fence : body.rfind("```") + 3], rule="fence")
    if body.strip()[:1] in ("[", "{"):
        return Extraction(answer=body.strip(), rule="text")
    return found


def _given(
    extraction: Extraction, golds: Sequence[Region], task: Task, coordinates: str, *, pairs: bool = False
) -> list[Region] | Found:
    """The regions of the answer in the reference's units, or why there are none."""
    if extraction.answer is None:
        return no_answer(extraction.rule)
    given = read_regions(extraction.answer, pairs=pairs)
    if given is None:
        return no_answer(f"{extraction.rule}/unreadable")
    if (extraction.rule in ("anchor", "line") and _HEDGE.search(extraction.answer)) or _DENIED.match(extraction.answer):
        return no_answer(f"{extraction.rule}/hedge")
    shares, gold_shares = in_unit_square(given), in_unit_square(golds)
    if coordinates == "thousand":
        given, shares = scaled(given, 0.001, 0.001), True
    if shares == gold_shares:
        return given
    size = image_size(task)
    if size is None:
        return no_answer(f"{extraction.rule}/units", "shares of the image cannot be compared without the image")
    width, height = size
    return scaled(given, width, height) if shares else scaled(given, 1 / width, 1 / height)


def image_size(task: Task) -> tuple[int, int] | None:
    """Width and height in pixels of the task's only image, from its header; None where it has none, or several."""
    from rewards.images import BadImage, open_image  # slow to import, and only some tasks need it

    if len(task.images) != 1:
        return None
    try:
        with open_image(task.images[0]) as image:
            return image.size if min(image.size) > 0 else None
    except BadImage:
        return None


def _score(gold: Region, box: Region) -> float:
    return iou(gold.coordinates, box.coordinates) if _same_label(gold, box) and not box.is_point else 0.0


def _same_label(gold: Region, given: Region) -> bool:
    return not gold.label or not given.label or gold.label == given.label
