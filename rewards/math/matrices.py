r"""Matrices and vectors: rows of cells, compared cell by cell; a column may stand for a tuple."""

from __future__ import annotations

import re
from collections.abc import Callable

from rewards.math.answer_parts import parse_parts

_ENVIRONMENT = re.compile(
    r"(?:\\(?:left)?[(\[{]|[(\[])?\s?\\begin\s?\{((?:p|b|B|small)?matrix|array|cases)\}\s?(?:\{[lcr| ]{1,40}\})?(.*?)"
    r"\\end\s?\{(?:(?:p|b|B|small)?matrix|array|cases)\}\s?(?:\\right)?[)\]}]?",
    re.DOTALL,
)
_RULE = re.compile(r"\\hline(?![a-zA-Z])")
_ROW = re.compile(r"\\\\(?:\s?\[[^\]]{0,10}\])?|\\cr(?![a-zA-Z])")
_MAX_CELLS = 144

Rows = tuple[tuple[str, ...], ...]


def matrices_equal(gold: str, answer: str, equal: Callable[[str, str], bool]) -> bool | None:
    """True or False where both are matrices, or one is a vector and the other a tuple; None where one is neither."""
    left, right = parse_matrix(gold), parse_matrix(answer)
    if left is not None and right is not None:
        return _shape(left) == _shape(right) and all(
            equal(x, y) for one, other in zip(left, right, strict=True) for x, y in zip(one, other, strict=True)
        )
    rows, text = (left, answer) if left is not None else (right, gold)
    if rows is None:
        return None
    group = parse_parts(text, thousands=False)
    if "\\begin" in text or group.opening not in ("(", "["):
        return None if "\\begin" in text else False
    cells = (
        [row[0] for row in rows] if all(len(row) == 1 for row in rows) else list(rows[0]) if len(rows) == 1 else None
    )
    if cells is None or len(cells) != len(group.parts):
        return False
    pairs = zip(cells, group.parts, strict=True)
    return all(equal(x, y) if left is not None else equal(y, x) for x, y in pairs)


def parse_matrix(text: str) -> Rows | None:
    """The cells of the one matrix that `text` is, by row; None where it is none, or is multiplied with something."""
    text = text.strip()
    if text.startswith("[[") or text.startswith("[ ["):
        rows = [parse_parts(part, thousands=False) for part in parse_parts(text, thousands=False).parts]
        even = len({len(row.parts) for row in rows}) == 1 and all(row.opening == "[" for row in rows)
        return tuple(row.parts for row in rows) if even else None
    match = _ENVIRONMENT.fullmatch(text)
    if match is None or "\\begin" in match[2]:
        return None
    rows = [
        tuple(cell.strip() for cell in row.split("&")) for row in _ROW.split(_RULE.sub("", match[2])) if row.strip()
    ]
    if not rows or sum(map(len, rows)) > _MAX_CELLS or len({len(row) for row in rows}) != 1:
        return None
    return tuple(rows)


def _shape(rows: Rows) -> tuple[int, int]:
    return len(rows), len(rows[0])
