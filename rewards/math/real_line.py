"""Pieces of the real line: ends with values or formulas, and what overlaps, touches or is the same."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from rewards.math.evaluation import context, number
from rewards.math.formula import Unreadable
from rewards.math.nodes import Node
from rewards.math.values import nodes_equal, same_number


@dataclass(frozen=True, slots=True)
class End:
    """One end of a piece: a formula and its value where it has one (floats only for the infinities)."""

    node: Node | None
    value: Any
    closed: bool


@dataclass(frozen=True, slots=True)
class RealSet:
    """A union of pieces, and the variable that was named ("" where none is, or it is bound)."""

    pieces: tuple[tuple[End, End], ...]
    variable: str = ""


LOW, HIGH = End(None, float("-inf"), False), End(None, float("inf"), False)
ALL = RealSet(((LOW, HIGH),))


def below(one: End, other: End) -> bool:
    a, b = one.value, other.value
    if isinstance(a, float) or isinstance(b, float):
        return (a if isinstance(a, float) else 0) < (b if isinstance(b, float) else 0)
    if same_number(a, b):
        return False
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return a < b
    return bool(comparable(a) < comparable(b))


def comparable(value: Any) -> Any:
    """A Fraction as what compares with an mpmath number."""
    return number(context(), value) if isinstance(value, Fraction) else value


def equal_values(one: End, other: End) -> bool:
    a, b = one.value, other.value
    if isinstance(a, float) or isinstance(b, float):
        return isinstance(a, float) and isinstance(b, float) and a == b
    return same_number(a, b)


def overlap(one: tuple[End, End], other: tuple[End, End]) -> tuple[End, End] | None:
    if any(end.value is None for end in (*one, *other)):
        raise Unreadable("ends that are no numbers")
    (a, b), (c, d) = one, other
    low = _either(a, c) if equal_values(a, c) else (c if below(a, c) else a)
    high = _either(b, d) if equal_values(b, d) else (b if below(b, d) else d)
    if below(high, low) or (equal_values(low, high) and not (low.closed and high.closed)):
        return None
    return low, high


def _either(one: End, other: End) -> End:
    return End(one.node, one.value, one.closed and other.closed)


def merged(pieces: tuple[tuple[End, End], ...]) -> list[tuple[End, End]]:
    """The pieces in order, those that touch or overlap joined."""
    left = list(pieces)
    ordered: list[tuple[End, End]] = []
    while left:
        first = left[0]
        for piece in left[1:]:
            if below(piece[0], first[0]) or (equal_values(piece[0], first[0]) and piece[0].closed):
                first = piece
        left.remove(first)
        last = ordered[-1] if ordered else None
        if last is not None and not below(last[1], first[0]):
            touching = equal_values(last[1], first[0])
            if not touching or last[1].closed or first[0].closed:
                wider = (
                    first[1]
                    if below(last[1], first[1]) or (equal_values(last[1], first[1]) and first[1].closed)
                    else last[1]
                )
                ordered[-1] = (last[0], wider)
                continue
        ordered.append(first)
    return ordered


def same_end(one: End, other: End) -> bool:
    if one.closed != other.closed:
        return False
    if one.value is not None and other.value is not None:
        return equal_values(one, other)
    return one.node is not None and other.node is not None and nodes_equal(one.node, other.node) is True
