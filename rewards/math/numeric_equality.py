"""Equality of expressions by their values at fixed points: faster than simplification, and it also proves difference.

Only the worker process imports this. The points are the same at every call, so that verdicts are reproducible.
"""

from __future__ import annotations

import random
from typing import Any

_DIGITS = 20
_CLOSE = 1e-12  # relative
_APART = 1e-6
_NEEDED = 4  # points at which both sides have a value
_MAX_SYMBOLS = 8
_RANGES = ((0.05, 0.95), (0.05, 0.95), (0.05, 0.95), (1.1, 3.7), (1.1, 3.7), (1.1, 3.7), (-2.3, -0.1), (-0.9, -0.1))


def functions_equal(left: Any, right: Any) -> bool | None:
    """True or False where the values of two sympy expressions decide, None where they do not.

    At positive points complex values count too; at negative ones only real values do, where branches cannot differ.
    """
    from sympy import Symbol

    symbols = sorted(left.free_symbols | right.free_symbols, key=lambda s: s.name)
    if not 0 < len(symbols) <= _MAX_SYMBOLS or not all(isinstance(s, Symbol) for s in symbols):
        return None
    if left.has(*_unsafe()) or right.has(*_unsafe()):
        return None
    same = 0
    for point in _points(symbols):
        a, b = _value(left, point), _value(right, point)
        if a is None or b is None or (min(point.values()) < 0 and (abs(a.imag) > _CLOSE or abs(b.imag) > _CLOSE)):
            continue
        size = max(abs(a), abs(b), 1e-300)
        if min(abs(a), abs(b)) == 0:
            size = max(size, 1e-8)  # terms that cancel leave dust
        if abs(a - b) > _APART * size:
            return False
        if abs(a - b) > _CLOSE * size:
            return None
        same += 1
    return True if same >= _NEEDED else None


def equations_equal(left: Any, right: Any) -> bool:
    """True where `lhs - rhs` of two sympy equations are multiples of each other, so that their solutions agree."""
    symbols = sorted(left.free_symbols | right.free_symbols, key=lambda s: s.name)
    if not 0 < len(symbols) <= _MAX_SYMBOLS or left.free_symbols != right.free_symbols:
        return False
    ratios: list[complex] = []
    for point in _points(symbols):
        a, b = _value(left.lhs - left.rhs, point), _value(right.lhs - right.rhs, point)
        if a is None or b is None or abs(b) < _APART or abs(a) < _APART:
            continue
        ratios.append(a / b)
    return len(ratios) >= _NEEDED and all(abs(r - ratios[0]) <= _CLOSE * 100 * abs(ratios[0]) for r in ratios)


def _points(symbols: list[Any]) -> list[dict[Any, float]]:
    points = []
    for index, (low, high) in enumerate(_RANGES):
        rng = random.Random(index)
        points.append({symbol: rng.uniform(low, high) for symbol in symbols})
    return points


def _value(expression: Any, point: dict[Any, float]) -> complex | None:
    from sympy import Float

    substitution = {symbol: Float(value, _DIGITS) for symbol, value in point.items()}
    try:
        value = complex(expression.evalf(_DIGITS, subs=substitution, maxn=60))
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return None
    return value if abs(value) < 1e60 and value == value else None


def _unsafe() -> tuple[Any, ...]:
    """What has no cheap value at a point."""
    from sympy import Derivative, Integral, Limit, Product, Sum
    from sympy.core.function import AppliedUndef

    return (Integral, Derivative, Limit, Sum, Product, AppliedUndef)
