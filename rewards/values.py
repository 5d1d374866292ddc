"""Are two formulas equal? Exactly where both are rational, else by 50-digit values at fixed points; no simplification.

Values also prove difference, which simplification cannot. Every operation is bounded in size before it is done, so that
no formula that `rewards.limits` lets through costs more than a fraction of a second. The points are always the same.
"""

from __future__ import annotations

import random
import threading
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial
from typing import Any

from rewards.formula import Node, Unreadable, letters, operations, parse_formula

_DIGITS = 50
_EQUAL, _DUST = 30, 42  # digits that must agree; digits at which a sum that cancels counts as zero
_MAX_BITS = 40_000  # of an exact number
_MAX_LOG2 = 200_000  # of a power's size
_MAX_LETTERS = 12
_NEEDED = 4  # points at which both sides have a value
_RANGES = ((0.05, 0.95), (1.1, 3.7), (4.1, 9.7), (0.05, 0.95), (1.1, 3.7), (-2.3, -0.1), (-0.9, 2.9), (-9.7, -4.1), (-0.95, -0.1))
_INTEGERS = (1, 2, 3, 4, 5, 6, 7, 8, 11, 14)
_INTEGER_LETTERS = frozenset("nkmjNKMl")
_STEPPED = frozenset(("fact", "binom", "floor", "ceil", "sin", "cos", "tan", "cot"))


class NoValue(Exception):
    """The formula has no value here, or one that is too large to compute."""


class _Point:
    """Values of the letters, and the largest term of a sum so far: what cancellation is measured against."""

    __slots__ = ("branch", "ctx", "largest", "values")

    def __init__(self, values: dict[str, Any]) -> None:
        self.ctx = _context()
        self.values = values
        self.largest = self.ctx.zero
        self.branch = False  # a root or logarithm of a negative number was taken: conventions may differ


_LOCAL = threading.local()


def _context() -> Any:
    """An mpmath context of this thread's own: its precision is state."""
    if not hasattr(_LOCAL, "ctx"):
        from mpmath.ctx_mp import MPContext

        _LOCAL.ctx = MPContext()
        _LOCAL.ctx.dps = _DIGITS
    return _LOCAL.ctx


def formulas_equal(gold: str, answer: str) -> bool | None:
    """True or False where the values of two texts decide; None where one is unreadable or has no values."""
    try:
        left, right = parse_formula(gold), parse_formula(answer)
    except Unreadable:
        return None
    return nodes_equal(left, right)


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
        return evaluate(node, _Point({}))
    except (NoValue, ArithmeticError, ValueError, TypeError):
        return None


def real_value(text: str) -> Any | None:
    """The real number that `text` is, as an mpmath number or Fraction; None where it is none."""
    try:
        value = value_of(parse_formula(text))
    except Unreadable:
        return None
    if value is None or isinstance(value, Fraction):
        return value
    return value if isinstance(value, _context().mpf) else None


def same_number(left: Any, right: Any, largest: Any = 0) -> bool:
    """Exactly for two Fractions, else to 30 digits of the larger one, or to dust of the largest term."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return left == right
    ctx = _context()
    a, b = _number(ctx, left), _number(ctx, right)
    difference = abs(a - b)
    return bool(difference <= max(abs(a), abs(b)) * ctx.mpf(10) ** -_EQUAL or difference <= largest * ctx.mpf(10) ** -_DUST)


def proportional(left: Node, right: Node) -> bool | None:
    """True where `left` is a constant multiple of `right`: two equations, written as differences, that say the same."""
    names = sorted(letters(left) | letters(right))
    if not names or len(names) > _MAX_LETTERS or letters(left) != letters(right):
        return False
    ratios = []
    for values in _points(tuple(names)):
        try:
            a, b = evaluate(left, _Point(values)), evaluate(right, _Point(values))
            ratios.append(_number(_context(), a) / _number(_context(), b))
        except (NoValue, ArithmeticError, ValueError, TypeError):
            continue
    if len(ratios) < _NEEDED:
        return None
    return all(same_number(ratio, ratios[0]) for ratio in ratios[1:]) and abs(ratios[0]) > 0


def _numbers_equal(left: Node, right: Node) -> bool | None:
    here = _Point({})
    try:
        a, b = evaluate(left, here), evaluate(right, here)
    except (NoValue, ArithmeticError, ValueError, TypeError):
        return None
    return same_number(a, b, here.largest)


def _sampled(left: Node, right: Node, points: list[dict[str, Any]]) -> bool | None:
    same = 0
    for values in points:
        here = _Point(values)
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


def _number(ctx: Any, value: Any) -> Any:
    if isinstance(value, Fraction):
        return ctx.mpf(value.numerator) / value.denominator
    return ctx.convert(value)


def evaluate(node: Node, here: _Point) -> Any:
    """The value of `node`: a Fraction while everything is rational, else an mpmath number. Raises NoValue."""
    if node.op == "num":
        return node.value
    if node.op == "sym":
        return Fraction(here.values[node.name])
    if node.op == "const":
        if node.name == "inf":
            raise NoValue
        return {"pi": here.ctx.pi, "e": here.ctx.e, "i": here.ctx.j}[node.name] + here.ctx.zero
    args = [evaluate(arg, here) for arg in node.args]
    if all(isinstance(arg, Fraction) for arg in args):
        found = _exact(node, args)
        if found is not None:
            return found
    return _finite(_OPERATIONS[node.op](here, [_number(here.ctx, arg) for arg in args], node), here)


def _finite(value: Any, here: _Point) -> Any:
    ctx = here.ctx
    if isinstance(value, ctx.mpc) and value.imag == 0:
        value = value.real
    if not ctx.isfinite(value):
        raise NoValue
    return value


def _exact(node: Node, args: list[Fraction]) -> Fraction | None:
    """The operation on rationals, None where the outcome is irrational or large."""
    first, second = args[0], args[-1]
    if sum(max(a.numerator.bit_length(), a.denominator.bit_length()) for a in args) > _MAX_BITS:
        raise NoValue
    if node.op == "add":
        return sum(args, Fraction(0))
    if node.op == "mul":
        product = Fraction(1)
        for arg in args:
            product *= arg
        return product
    if node.op in ("div", "inv"):
        if second == 0:
            raise NoValue
        return first / second if node.op == "div" else 1 / second
    if node.op == "neg":
        return -first
    if node.op == "pow" and second.denominator == 1:
        return _exact_power(first, int(second))
    if node.op in ("fact", "binom"):
        return _exact_combinatorics(node.op, first, second)
    if node.op == "fn" and node.name in ("abs", "floor", "ceil"):
        return {"abs": abs, "floor": lambda v: Fraction(v // 1), "ceil": lambda v: Fraction(-(-v // 1))}[node.name](first)
    return _exact_root(first, second) if node.op == "root" else None


def _exact_power(base: Fraction, exponent: int) -> Fraction | None:
    if base == 0 and exponent <= 0:
        raise NoValue
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    return base**exponent if bits * abs(exponent) <= _MAX_BITS else None


def _exact_combinatorics(op: str, first: Fraction, second: Fraction) -> Fraction | None:
    if first.denominator != 1 or second.denominator != 1 or first < 0 or second < 0:
        return None
    if first > 2000:
        raise NoValue
    return Fraction(factorial(int(first)) if op == "fact" else comb(int(first), int(second)))


def _exact_root(value: Fraction, order: Fraction) -> Fraction | None:
    if order != 2 or value < 0:
        return None
    from math import isqrt

    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    return Fraction(top, bottom) if top * top == value.numerator and bottom * bottom == value.denominator else None


def _add(here: _Point, args: list[Any], _: Node) -> Any:
    here.largest = max(here.largest, *(abs(arg) for arg in args))
    total = here.ctx.zero
    for arg in args:
        total = total + arg
    return total


def _mul(here: _Point, args: list[Any], _: Node) -> Any:
    product = here.ctx.one
    for arg in args:
        product = product * arg
    return product


def _div(here: _Point, args: list[Any], _: Node) -> Any:
    if args[-1] == 0 or abs(args[-1]) <= here.largest * here.ctx.mpf(10) ** -_DUST:
        raise NoValue
    return args[0] / args[-1] if len(args) == 2 else 1 / args[0]


def _pow(here: _Point, args: list[Any], _: Node) -> Any:
    base, exponent = args
    ctx = here.ctx
    if base == 0:
        if not isinstance(exponent, ctx.mpf) or exponent <= 0:
            raise NoValue
        return ctx.zero
    size = abs(ctx.log(abs(base), 2)) * abs(exponent) + abs(exponent)
    if size > _MAX_LOG2:
        raise NoValue
    here.branch |= isinstance(base, ctx.mpf) and base < 0 and not ctx.isint(exponent)
    return ctx.power(base, exponent)


def _root(here: _Point, args: list[Any], _: Node) -> Any:
    value, order = args
    ctx = here.ctx
    here.branch |= isinstance(value, ctx.mpf) and value < 0
    if order == 2:
        return ctx.sqrt(value)
    if order == 0 or abs(order) > 1000:
        raise NoValue
    odd = isinstance(value, ctx.mpf) and value < 0 and ctx.isint(order) and int(order) % 2 == 1
    return -ctx.power(-value, 1 / order) if odd else (_pow(here, [value, 1 / order], _) if value != 0 else value)


def _fact(here: _Point, args: list[Any], _: Node) -> Any:
    if abs(args[0]) > 1000:
        raise NoValue
    return here.ctx.gamma(args[0] + 1)


def _binom(here: _Point, args: list[Any], node: Node) -> Any:
    n, k = args
    return _fact(here, [n], node) / (_fact(here, [k], node) * _fact(here, [n - k], node))


def _deg(here: _Point, args: list[Any], _: Node) -> Any:
    return args[0] * here.ctx.pi / 180


def _log(here: _Point, args: list[Any], _: Node) -> Any:
    if args[0] == 0 or args[1] == 0 or args[1] == 1:
        raise NoValue
    return here.ctx.log(args[0]) / here.ctx.log(args[1])


def _fn(here: _Point, args: list[Any], node: Node) -> Any:
    ctx, (value,), name = here.ctx, args, node.name
    if abs(value) > (10_000 if name in ("exp", "sinh", "cosh", "tanh", "coth") else 10**12) and name not in ("ln", "log", "log10", "abs"):
        raise NoValue
    if name in ("ln", "log", "log10"):
        if value == 0:
            raise NoValue
        here.branch |= not isinstance(value, ctx.mpf) or value < 0
        return ctx.log(value) if name != "log10" else ctx.log(value) / ctx.log(10)
    if name == "abs":
        return abs(value)
    if name in ("floor", "ceil"):
        return ctx.floor(value) if name == "floor" else ctx.ceil(value)
    names = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arccot": "acot"}
    function = getattr(ctx, names.get(name, name), None)  # `name` is one of the grammar's own, never the answer's
    if function is None:
        raise NoValue
    return function(value)


_OPERATIONS = {
    "add": _add, "mul": _mul, "div": _div, "inv": _div, "pow": _pow, "root": _root, "fact": _fact, "binom": _binom,
    "deg": _deg, "log": _log, "fn": _fn, "neg": lambda here, args, node: -args[0],
}  # fmt: skip
