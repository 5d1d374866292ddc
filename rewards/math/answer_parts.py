"""Lists, tuples, intervals and sets: where an answer has several parts, and which of them must match in which order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

_AND = re.compile(r",?\s?(?:\\text\s?\{\s?,?\s?(?:and|or)\s?\}|(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z]))\s?,?")
TUPLE_LABEL = re.compile(
    r"^\s?\(\s?[a-zA-Z](?:_\{?\w\}?|\([a-z]\))?(?:\s?,\s?(?:[a-zA-Z]|\\ell)(?:_\{?\w\}?|\([a-z]\))?){1,5}\s?\)\s?(?:=|\\in)\s?"
)
_POINT_LABEL = re.compile(r"^\s?[A-Z]'?(?:_\{?\w\}?)?\s?=?\s?(?=\([^()]*,)")
_MEMBER = re.compile(r"^\s?[a-zA-Z]\s?\\in\s?")
_OTHER_SHAPE = re.compile(r"[<>|]|\\(?:le|ge|ne|lt|gt|cup|cap|mid|setminus|mathbb|begin)(?![a-zA-Z])")
_CLOSING = {"(": ")", "[": "]", "\\{": "\\}"}
_MAX_PARTS = 60
_MAX_SIGNS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerParts:
    """The top-level parts of an answer and the brackets around them ("" where there are none)."""

    opening: str
    closing: str
    parts: tuple[str, ...]


def parse_parts(text: str, *, thousands: bool = True) -> AnswerParts:
    """Split `text` (normalised LaTeX) at its top-level commas, semicolons and "and"/"or"."""
    text = _MEMBER.sub("", _POINT_LABEL.sub("", TUPLE_LABEL.sub("", text.strip())))
    parts = _split(_AND.sub(",", text), thousands=thousands)
    if len(parts) == 1:
        opening = "\\{" if text.startswith("\\{") else text[:1]
        closing = "\\}" if text.endswith("\\}") else text[-1:]
        inner = text[len(opening) : len(text) - len(closing)]
        if opening in _CLOSING and closing in _CLOSING.values() and _closes_at_end(text, len(opening)):
            pieces = _split(_AND.sub(",", inner), thousands=False)
            if len(pieces) > 1 or opening == "\\{":
                return AnswerParts(opening=opening, closing=closing, parts=tuple(pieces))
    return AnswerParts(opening="", closing="", parts=tuple(parts))


def expand_signs(group: AnswerParts) -> AnswerParts:
    r"""Write each bare or set part that has a `\pm` as its two values; the parts of a tuple vary independently."""
    if group.opening in ("(", "[") or not any("\\pm" in part for part in group.parts):
        return group
    parts: list[str] = []
    for part in group.parts:
        inner = parse_parts(part)
        if inner.opening == "(" and "\\pm" in part:
            if "\\mp" in part:  # the signs go together
                parts += _signs(part)
                continue
            options = [_signs(p) for p in inner.parts]
            if sum(len(o) == 2 for o in options) > _MAX_SIGNS:
                return group
            parts += ["(" + ",".join(choice) + ")" for choice in product(*options)]
        else:
            parts += _signs(part)
    return AnswerParts(opening=group.opening, closing=group.closing, parts=tuple(parts))


def compare(gold: str, answer: str, equal: Callable[[str, str], bool]) -> bool | None:
    """True or False where the shapes decide with `equal` on the parts, None where neither side has several parts.

    Bare lists and sets match in any order, each part once; tuples and intervals in order, with the same ends.
    None is also the outcome where the shapes differ in a way that only algebra can settle.
    """
    g, a = parse_parts(gold), parse_parts(answer)
    if g.opening == "" and a.opening == "" and "\\pm" in gold + answer:
        g, a = expand_signs(g), expand_signs(a)
    elif "\\pm" in gold + answer:
        g, a = expand_signs(_bare_tuple(g)), expand_signs(_bare_tuple(a))
    if len(g.parts) == 1 and len(a.parts) == 1 and g.opening == a.opening:
        return None if g.opening == "" else equal(g.parts[0], a.parts[0])
    if len(g.parts) != len(a.parts):
        g, a = parse_parts(gold, thousands=False), parse_parts(answer, thousands=False)
        g, a = (expand_signs(g), expand_signs(a)) if g.opening == a.opening == "" else (g, a)
    if max(len(g.parts), len(a.parts)) > _MAX_PARTS:
        return False
    if len(g.parts) == 1 and g.opening == "\\{" and a.opening != "\\{":
        return _part_equal(g.parts[0], answer, equal)
    if len(a.parts) == 1 and a.opening == "\\{" and g.opening != "\\{":
        return _part_equal(gold, a.parts[0], equal)
    if len(g.parts) != len(a.parts):
        return None if _OTHER_SHAPE.search(gold + answer) else False
    ordered = g.opening in ("(", "[") or a.opening in ("(", "[")
    if not ordered:
        return _match(g.parts, a.parts, equal)
    if "\\{" in (g.opening, a.opening):
        return False  # a set is no point and no interval
    both = g.opening and a.opening
    if both and len(g.parts) == 2 and (g.opening, g.closing) != (a.opening, a.closing):
        return False
    return all(_part_equal(x, y, equal) for x, y in zip(g.parts, a.parts, strict=True))


def _bare_tuple(group: AnswerParts) -> AnswerParts:
    if group.opening != "(":
        return group
    return AnswerParts(opening="", closing="", parts=("(" + ",".join(group.parts) + ")",))


def _match(gold: tuple[str, ...], answer: tuple[str, ...], equal: Callable[[str, str], bool]) -> bool:
    left = list(answer)
    for part in gold:
        found = next((i for i, other in enumerate(left) if _part_equal(part, other, equal)), None)
        if found is None:
            return False
        left.pop(found)
    return True


def _part_equal(gold: str, answer: str, equal: Callable[[str, str], bool]) -> bool:
    nested = compare(gold, answer, equal)
    return equal(gold, answer) if nested is None else nested


def _signs(part: str) -> list[str]:
    if "\\pm" not in part:
        return [part]
    plus = part.replace("\\pm", "+").replace("\\mp", "-")
    minus = part.replace("\\pm", "-").replace("\\mp", "+")
    return [plus, minus]


def _split(text: str, *, thousands: bool) -> list[str]:
    parts, depth, start, at = [], 0, 0, 0
    while at < len(text):
        char = text[at]
        if char == "\\" and text[at + 1 : at + 2] not in ("{", "}"):
            at += 2
            continue
        if char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char in ",;" and depth == 0 and not (thousands and _thousands(text, at)):
            parts.append(text[start:at])
            start = at + 1
        at += 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()] or [""]


def _thousands(text: str, at: int) -> bool:
    """True for the comma of 1,234: digits close on both sides, three of them after it."""
    return bool(re.match(r"\d,\d{3}(?!\d)", text[max(0, at - 1) : at + 5])) and " " not in text[at - 1 : at + 2]


def _closes_at_end(text: str, start: int) -> bool:
    depth = 1
    for at in range(start, len(text)):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
            if depth == 0:
                return at == len(text) - 1
    return False
