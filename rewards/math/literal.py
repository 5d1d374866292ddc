r"""Exact values of plain number literals, with our own small grammar: no `eval`, no floats, no arithmetic.

A literal is a number as people write one down: `-3.5`, `1,234`, `7/8`, `\frac{7}{8}`, `2 1/2`, `33.5%`,
`6.02\times10^{23}`, `2^{10}`, `0.\overline{3}`. Sums and products are not literals: a response that only repeats the
arithmetic of the question has not answered it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rewards.math.units import Measure, split_unit, units_agree

__all__ = ["Literal", "Measure", "literals_equal", "parse_literal", "split_unit", "units_agree"]

_MAX_DIGITS = 400
_MAX_EXPONENT = 400  # of ten
_MAX_BITS = 4096

_N = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_NUMBER = re.compile(_N)
_MIXED_SLASH = re.compile(r"(\d+)(?: | ?\+ ?)(\d+)\s?/\s?(\d+)")
_FRACTION = re.compile(rf"({_N})?\s?\+?\s?\\frac\s?(?:\{{\s?(-?{_N})\s?\}}|(\d))\s?(?:\{{\s?(-?{_N})\s?\}}|(\d))")
_SLASH = re.compile(rf"({_N})\s?(?:/|:)\s?({_N})")
_SCIENTIFIC = re.compile(
    rf"(?:({_N})\s?(?:\\times|\\cdot|\*|x)\s?)?10\s?\^\s?(?:\{{\s?([-+]?\d+)\s?\}}|\(\s?([-+]?\d+)\s?\)|([-+]?\d+))"
)
_E_NOTATION = re.compile(rf"({_N})[eE]([-+]?\d+)")
_POWER = re.compile(r"(\d+)\s?\^\s?(?:\{\s?(\d+)\s?\}|(\d))")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s?\{\s?(\d+)\s?\}")
_PERCENT = re.compile(r"\s?(?:\\?%|(?:\\text\s?\{\s?)?(?:per ?cent(?:age)?|pct)\b\s?\}?)\s?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """An exact number and how it was written."""

    value: Fraction  # of what stands before the percent sign, where there is one
    percent: bool = False
    decimals: int | None = None  # digits after the point where it was written as a decimal, else None
    ratio: bool = False  # written a:b


@lru_cache(maxsize=8192)
def parse_literal(text: str) -> Literal | None:
    """The literal that `text` (normalised LaTeX, without unit) is, or None. Linear time, bounded integers."""
    text = text.strip()
    if not text or len(text) > _MAX_DIGITS:
        return None
    percent = _PERCENT.search(text)
    if percent is not None:
        text = text[: percent.start()].strip()
    while len(text) > 2 and text[0] == "(" and text.find(")") == len(text) - 1 and "," not in text:
        text = text[1:-1].strip()
    sign = 1
    if text[:1] in "+-":
        sign = -1 if text[:1] == "-" else 1
        text = text[1:].lstrip()
    if not text or not (text[0].isdigit() or text[0] in ".\\") or not text.isascii():
        return None
    try:
        found = _unsigned(text)
    except (ZeroDivisionError, OverflowError, ValueError):
        return None
    if found is None:
        return None
    return Literal(value=sign * found.value, percent=percent is not None, decimals=found.decimals, ratio=found.ratio)


def literals_equal(gold: Literal, answer: Literal, factor: Fraction = Fraction(1)) -> bool:
    """Exact equality, with two allowances that are written down in `docs/verifiers.md`.

    Percent: 33.5% equals 0.335; where only one side writes the sign, 28 equals 28% too, if the number is above 1
    (at least 1 where the reference has the sign).
    Rounding: a decimal with 6 or more decimals equals the fraction that it is the rounding of.
    `factor`: what to multiply the answer with, to have it in the unit of the reference.
    """
    if gold.percent != answer.percent:
        bare, signed = (answer, gold) if gold.percent else (gold, answer)
        if _close(bare, signed, scale=Fraction(1, 100)):
            return True
        return abs(signed.value) > (0.99 if gold.percent else 1) and bare.value == signed.value
    return _close(gold, answer, scale=factor)


def _close(left: Literal, right: Literal, *, scale: Fraction = Fraction(1)) -> bool:
    a, b = left.value, right.value * scale
    if a == b:
        return True
    if (left.decimals is None) == (right.decimals is None):
        return False
    decimals = left.decimals if left.decimals is not None else right.decimals
    exact = b if left.decimals is not None else a
    if decimals is None or decimals < 6 or exact.denominator == 1 or abs(exact) < Fraction(1, 100):
        return False
    return abs(a - b) <= Fraction(1, 10**decimals) / 2


def _unsigned(text: str) -> Literal | None:
    if _NUMBER.fullmatch(text):
        return Literal(value=_number(text), decimals=len(text.partition(".")[2]) if "." in text else None)
    match = _SLASH.fullmatch(text)
    if match is not None:
        return Literal(value=_number(match[1]) / _number(match[2]), ratio=":" in text)
    match = _FRACTION.fullmatch(text)
    if match is not None:
        value = _number(match[2] or match[3]) / _number(match[4] or match[5])
        return Literal(value=(_number(match[1]) if match[1] else 0) + value)
    match = _MIXED_SLASH.fullmatch(text)
    if match is not None:
        return Literal(value=Fraction(int(match[1])) + Fraction(int(match[2]), int(match[3])))
    match = _SCIENTIFIC.fullmatch(text)
    if match is not None:
        return _scaled(match[1] or "1", match[2] or match[3] or match[4])
    match = _E_NOTATION.fullmatch(text)
    if match is not None:
        return _scaled(match[1], match[2])
    match = _POWER.fullmatch(text)
    if match is not None:
        base, exponent = int(match[1]), int(match[2] or match[3])
        return Literal(value=Fraction(base**exponent)) if base.bit_length() * exponent <= _MAX_BITS else None
    match = _REPEATING.fullmatch(text)
    if match is not None:
        return _repeating(match[1], match[2], match[3])
    return None


def _scaled(mantissa: str, exponent: str) -> Literal | None:
    if abs(int(exponent)) > _MAX_EXPONENT:
        return None
    return Literal(value=_number(mantissa) * Fraction(10) ** int(exponent))


def _repeating(whole: str, fixed: str, block: str) -> Literal:
    head = Fraction(int((whole or "0") + fixed), 10 ** len(fixed))
    return Literal(value=head + Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(fixed)))


def _number(text: str) -> Fraction:
    negative = text.startswith("-")
    whole, _, decimals = text.lstrip("-").replace(",", "").partition(".")
    value = Fraction(int(whole or "0") * 10 ** len(decimals) + int(decimals or "0"), 10 ** len(decimals))
    return -value if negative else value
