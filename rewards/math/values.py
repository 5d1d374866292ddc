"""Are two formulas equal? Exactly where both are rational, else by 50-digit values at fixed points; no simplification.

Values also prove difference, which simplification cannot. The points are always the same.
"""

from __future__ import annotations

import random
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rewards.math.evaluation import DUST, NoValue, Point, context, evaluate, number
from rewards.math.nodes import Node, letters, operations

_EQUAL = 30  # digits that must agree
_MAX_LETTERS = 12
_NEEDED = 4  # points at which both sides have a value
_RANGES = (
    (0.05, 0.95),
    (1.1, 3.7),
    (4.1, 9.7),
    (0.05, 0.95),
    (1.1, 3.7),
    (-2.3, -0.1),
    (-0.9, 2.9),
    (-9.7, -4.1),
    (-0.95, -0.1),
)
_INTEGERS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 14)
_INTEGER_LETTERS = frozenset("nkmjNKMl")
_STEPPED = frozenset(("fact", "binom", "floor", "ceil", "sin", "cos", "tan", "cot"))


def nodes_equal(left: Node, right: Node) -> bool | None:
    """True or False where values decide, None where there are none (an infinity, 1/0)."""
    if left == right:
        return True if letters(left) or value_of(left) is not None else None
    names = sorted(letters(left) | letters(right))
    if len(names) > _MAX_LETTERS:
        return None
    if not names:
        return _numbers_equal(left, right)
    outcome = _sampled(left, right, _points(tuple(names)))
    if outcome is not True and set(names) <= _INTEGER_LETTERS and _stepped(left, right):
        integers = [dict.fromkeys(names, n) for n in _INTEGERS] if len(names) == 1 else _grid(names)
        return _sampled(left, right, integers)
    return outcome


def value_of(node: Node) -> Any | None:
    """The number that a formula without letters is (a Fraction or an mpmath number), else None."""
    if letters(node):
        return None
    try:
        return evaluate(node, Point({}))
    except (NoValue, ArithmeticError, ValueError, TypeError):
        return None


def same_number(left: Any, right: Any, largest: Any = 0) -> bool:
    """Exactly for two Fractions, else to 30 digits of the larger one, or to dust of the largest term."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    ctx = context()
    a, b = number(ctx, left), number(ctx, right)
    difference = abs(a - b)
    return bool(
        difference <= max(abs(a), abs(b)) * ctx.mpf(10) ** -_EQUAL or difference <= largest * ctx.mpf(10) ** -DUST
    )


def proportional(left: Node, right: Node) -> bool | None:
    """True where `left` is a constant multiple of `right`: two equations, written as differences, that say the same."""
    names = sorted(letters(left) | letters(right))
    if not names or len(names) > _MAX_LETTERS or letters(left) != letters(right):
        return False
    ratios = []
    for values in _points(tuple(names)):
        try:
            a, b = evaluate(left, Point(values)), evaluate(right, Point(values))
            ratios.append(number(context(), a) / number(context(), b))
        except (NoValue, ArithmeticError, ValueError, TypeError):
            continue
    if len(ratios) < _NEEDED:
        return None
    return all(same_number(ratio, ratios[0]) for ratio in ratios[1:]) and abs(ratios[0]) > 0


def _numbers_equal(left: Node, right: Node) -> bool | None:
    here = Point({})
    try:
        a, b = evaluate(left, here), evaluate(right, here)
    except (NoValue, ArithmeticError, ValueError, TypeError):
        return None
    return same_number(a, b, here.largest)


def _sampled(left: Node, right: Node, points: list[dict[str, Any]]) -> bool | None:
    same = 0
    for values in points:
        here = Point(values)
        try:
            a, b = evaluate(left, here), evaluate(right, here)
        except (NoValue, ArithmeticError, ValueError, TypeError):
            continue
        if same_number(a, b, here.largest):
            same += 1
        elif not here.branch:
            return False
    return True if same >= _NEEDED else None


@lru_cache(maxsize=1024)
def _points(names: tuple[str, ...]) -> list[dict[str, Any]]:
    points = []
    for index, (low, high) in enumerate(_RANGES):
        rng = random.Random(index)
        points.append({name: Fraction(round(rng.uniform(low, high) * 10**9), 10**9) for name in names})
    return points


def _grid(names: list[str]) -> list[dict[str, Any]]:
    return [{name: 2 + (shift * (3 + at) + at) % 7 for at, name in enumerate(names)} for shift in range(8)]


def _stepped(left: Node, right: Node) -> bool:
    found = operations(left) | operations(right)
    return bool(found & _STEPPED) or ("pow" in found and "neg" in found)
