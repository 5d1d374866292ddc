"""The value of a formula at a point: exact while everything is rational, else an mpmath number of 50 digits.

Every operation is bounded in size before it is done, so that no formula that `rewards.math.limits` lets through
costs more than a fraction of a second.
"""

from __future__ import annotations

import threading
from fractions import Fraction
from math import comb, factorial, isqrt
from typing import Any

from rewards.math.nodes import Node

_DIGITS = 50
DUST = 42  # digits at which a sum that cancels counts as zero
_MAX_BITS = 40_000  # of an exact number
_MAX_LOG2 = 200_000  # of a power's size


class NoValue(Exception):
    """The formula has no value here, or one that is too large to compute."""


class Point:
    """Values of the letters, and the largest term of a sum so far: what cancellation is measured against."""

    __slots__ = ("branch", "ctx", "largest", "values")

    def __init__(self, values: dict[str, Any]) -> None:
        self.ctx = context()
        self.values = values
        self.largest = self.ctx.zero
        self.branch = False  # a root or logarithm of a negative number was taken: conventions may differ


_LOCAL = threading.local()


def context() -> Any:
    """An mpmath context of this thread's own: its precision is state."""
    if not hasattr(_LOCAL, "ctx"):
        from mpmath.ctx_mp import MPContext

        _LOCAL.ctx = MPContext()
        _LOCAL.ctx.dps = _DIGITS
    return _LOCAL.ctx


def number(ctx: Any, value: Any) -> Any:
    """A Fraction or a Python number as a number of `ctx`."""
    if isinstance(value, Fraction):
        return ctx.mpf(value.numerator) / value.denominator
    return ctx.convert(value)


def evaluate(node: Node, here: Point) -> Any:
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
    return _finite(_OPERATIONS[node.op](here, [number(here.ctx, arg) for arg in args], node), here)


def _finite(value: Any, here: Point) -> Any:
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
        return {"abs": abs, "floor": lambda v: Fraction(v // 1), "ceil": lambda v: Fraction(-(-v // 1))}[node.name](
            first
        )
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
    top, bottom = isqrt(value.numerator), isqrt(value.denominator)
    return Fraction(top, bottom) if top * top == value.numerator and bottom * bottom == value.denominator else None


def _add(here: Point, args: list[Any], _: Node) -> Any:
    here.largest = max(here.largest, *(abs(arg) for arg in args))
    total = here.ctx.zero
    for arg in args:
        total = total + arg
    return total


def _mul(here: Point, args: list[Any], _: Node) -> Any:
    product = here.ctx.one
    for arg in args:
        product = product * arg
    return product


def _div(here: Point, args: list[Any], _: Node) -> Any:
    if args[-1] == 0 or abs(args[-1]) <= here.largest * here.ctx.mpf(10) ** -DUST:
        raise NoValue
    return args[0] / args[-1] if len(args) == 2 else 1 / args[0]


def _pow(here: Point, args: list[Any], _: Node) -> Any:
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


def _root(here: Point, args: list[Any], _: Node) -> Any:
    value, order = args
    ctx = here.ctx
    here.branch |= isinstance(value, ctx.mpf) and value < 0
    if order == 2:
        return ctx.sqrt(value)
    if order == 0 or abs(order) > 1000:
        raise NoValue
    odd = isinstance(value, ctx.mpf) and value < 0 and ctx.isint(order) and int(order) % 2 == 1
    return -ctx.power(-value, 1 / order) if odd else (_pow(here, [value, 1 / order], _) if value != 0 else value)


def _fact(here: Point, args: list[Any], _: Node) -> Any:
    if abs(args[0]) > 1000:
        raise NoValue
    return here.ctx.gamma(args[0] + 1)


def _binom(here: Point, args: list[Any], node: Node) -> Any:
    n, k = args
    return _fact(here, [n], node) / (_fact(here, [k], node) * _fact(here, [n - k], node))


def _deg(here: Point, args: list[Any], _: Node) -> Any:
    return args[0] * here.ctx.pi / 180


def _log(here: Point, args: list[Any], _: Node) -> Any:
    if args[0] == 0 or args[1] == 0 or args[1] == 1:
        raise NoValue
    return here.ctx.log(args[0]) / here.ctx.log(args[1])


def _fn(here: Point, args: list[Any], node: Node) -> Any:
    ctx, (value,), name = here.ctx, args, node.name
    if abs(value) > (10_000 if name in ("exp", "sinh", "cosh", "tanh", "coth") else 10**12) and name not in (
        "ln",
        "log",
        "log10",
        "abs",
    ):
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
