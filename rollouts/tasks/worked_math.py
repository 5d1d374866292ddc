"""Worked solutions of `reasoning-gym` problems, one step on each line, from what its generators tell of a problem."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from typing import Any

Facts = Mapping[str, Any]  # the `metadata` of a problem

_LINEAR = re.compile(r"(-?\d+)\*(\w) ([+-]) (\d+) = (-?\d+)")
_SYMBOLS: Mapping[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


def arithmetic(facts: Facts) -> str | None:
    """Every operation of `expression` in the order in which it is done; None where a division leaves a rest."""
    lines: list[str] = []
    try:
        _reduce(ast.parse(facts["expression"].strip(), mode="eval").body, lines)
    except _NotExact:
        return None
    return "\n".join(lines) or None


class _NotExact(Exception):
    """A division with a rest."""


def _reduce(node: ast.expr, lines: list[str]) -> int:
    """The value of an expression; its operations are added to `lines`."""
    if isinstance(node, ast.Constant):
        return int(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.UnaryOp):
        value = _reduce(node.operand, lines)
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            lines.append(f"-({value})={-value}")
        return -value if isinstance(node.op, ast.USub) else value
    assert isinstance(node, ast.BinOp), "the generators write sums, products and brackets"
    left, right = _reduce(node.left, lines), _reduce(node.right, lines)
    symbol = _SYMBOLS[type(node.op)]
    if symbol == "/":
        if right == 0 or left % right:
            raise _NotExact
        result = left // right
    else:
        result = {"+": left + right, "-": left - right, "*": left * right}[symbol]
    lines.append(f"{left}{symbol}{f'({right})' if right < 0 else right}={result}")
    return result


def greatest_divisor(facts: Facts) -> str:
    """Euclid's algorithm, number by number."""
    lines: list[str] = []
    found, *others = facts["numbers"]
    for other in others:
        found = _euclid(found, other, lines)
    return "\n".join(lines)


def _euclid(first: int, second: int, lines: list[str]) -> int:
    """The greatest common divisor of two numbers; its divisions are added to `lines`."""
    high, low = max(first, second), min(first, second)
    while low:
        lines.append(f"{high}={high // low}*{low}+{high % low}")
        high, low = low, high % low
    lines.append(f"gcd({first}, {second})={high}")
    return high


def least_multiple(facts: Facts) -> str:
    """By the greatest common divisor, number by number."""
    lines: list[str] = []
    found, *others = facts["numbers"]
    for other in others:
        divisor = _euclid(found, other, lines)
        result = found * other // divisor
        lines.append(f"lcm({found}, {other})={found}*{other}/{divisor}={result}")
        found = result
    return "\n".join(lines)


def linear_equation(facts: Facts) -> str | None:
    """The equation `a*x + b = c` solved for `x`; None for other forms."""
    match = _LINEAR.fullmatch(facts["equation"].strip())
    if match is None:
        return None
    factor, name, sign, added, value = match.groups()
    opposite = "-" if sign == "+" else "+"
    rest = int(value) - int(sign + added)
    return f"{factor}*{name}={value}{opposite}{added}={rest}\n{name}={rest}/{factor}={rest // int(factor)}"


def bits(facts: Facts) -> str:
    """The number in binary."""
    return f"{facts['number']} in binary is {facts['binary']}."


SOLUTIONS: Mapping[str, Callable[[Facts], str | None] | None] = {  # generator -> its solution, where there is one
    "basic_arithmetic": arithmetic,
    "chain_sum": arithmetic,
    "count_bits": bits,
    "gcd": greatest_divisor,
    "lcm": least_multiple,
    "leg_counting": None,
    "number_sequence": None,
    "products": arithmetic,
    "simple_equations": linear_equation,
}
