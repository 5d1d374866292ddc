"""Cheap refusals before any parser: what no honest answer looks like, and what would cost a computer algebra system.

A refused answer is `no_answer` (it counts as wrong); a refused reference is `bad_reference`.
"""

from __future__ import annotations

import re

MAX_ANSWER = 2_000  # characters
MAX_REFERENCE = 10_000
_MAX_DEPTH = 24
_MAX_DIGITS = 400
_MAX_EXPONENT = 5_000
_MAX_GROUP_EXPONENT = 100  # of a bracketed sum: expanding it costs
_MAX_FACTORIAL = 5_000
_MAX_CELLS = 100
_MAX_PARTS = 200  # elements of a list

_DIGITS = re.compile(r"\d+")
_FACTORIAL = re.compile(r"(?:(?<!\d)(\d+))?\s?([)}\]]?)\s?!")
_NESTED_FACTORIAL = re.compile(r"!\s?[)}\]]{0,24}\s?!")
_GAMMA = re.compile(r"\\(?:Gamma|zeta|binom|tbinom|dbinom)[^a-zA-Z]")
_BIG = re.compile(r"\d{5,}|10\s?\^")
_OPERATOR = re.compile(
    r"\\(?:int|iint|oint|sum|prod|partial|lim|det)(?![a-zA-Z])|\\frac\s?\{\s?d\s?[}^]"
    r"|\\begin\s?\{[vV]matrix\}|\\?(?:gcd|lcm|max|min|mod|bmod|pmod|floor|round|len)\s?\}?\s?(?:\(|\\\{|\[|\{)|\\b?mod(?![a-zA-Z])"
    r"|\\[dt]?binom\s?\{\s?\d+\s?\}\s?\{\s?\d+\s?\}"
)


def refusal(text: str, *, longest: int = MAX_ANSWER) -> str | None:
    """Why `text` (normalised LaTeX) is refused, or None where it may be parsed. Linear time."""
    if len(text) > longest:
        return f"longer than {longest} characters"
    if _depth(text) > _MAX_DEPTH:
        return f"nested deeper than {_MAX_DEPTH}"
    if max(map(len, _DIGITS.findall(text)), default=0) > _MAX_DIGITS:
        return f"a number of more than {_MAX_DIGITS} digits"
    if text.count("&") + text.count("\\\\") > _MAX_CELLS or text.count(",") > _MAX_PARTS:
        return f"more than {_MAX_CELLS} cells or {_MAX_PARTS} parts"
    if "__" in text:
        return "a double underscore"
    return _factorials(text) or _powers(text)


def unevaluated(text: str) -> bool:
    """True where `text` still holds an integral, a sum, a limit or the like: the question, not its answer."""
    return bool(_OPERATOR.search(text))


def _depth(text: str) -> int:
    depth = deepest = 0
    for char in text:
        if char in "([{":
            depth += 1
            deepest = max(deepest, depth)
        elif char in ")]}":
            depth -= 1
    return max(deepest, text.count(r"\sqrt"), text.count(r"\frac") // 2)


def _factorials(text: str) -> str | None:
    nested = 0
    for match in _FACTORIAL.finditer(text):
        nested += bool(match[2])
        if match[1] and (len(match[1]) > 6 or int(match[1]) > _MAX_FACTORIAL):
            return f"the factorial of a number above {_MAX_FACTORIAL}"
    if nested and _BIG.search(text):
        return "the factorial of a large number"
    if _NESTED_FACTORIAL.search(text):
        return "nested factorials"
    if _GAMMA.search(text) and _BIG.search(text):
        return "a special function of a large number"
    return None


def _powers(text: str) -> str | None:
    """Refuse towers and huge exponents. Looks at each `^` once, and inside its exponent for another one."""
    ends: list[int] = []  # where the exponents that are open at this place end
    at = text.find("^")
    while at >= 0:
        ends = [end for end in ends if end > at]
        operand, end = _operand(text, at + 1)
        chained = text[end:].lstrip().startswith("^")
        numeric = not re.search(r"[A-Za-z]", operand.replace(r"\cdot", "").replace(r"\times", "").replace(r"\log", ""))
        if numeric and (chained or "^" in operand) and not _small_power(operand, text[end:]):
            return "a tower of powers"
        digits = operand.strip(" {}()+-")
        if digits.isdigit() and (len(digits) > 9 or int(digits) > _MAX_EXPONENT):
            return f"an exponent above {_MAX_EXPONENT}"
        if digits.isdigit() and int(digits) > _MAX_GROUP_EXPONENT and text[:at].rstrip().endswith((")", "}", "]")):
            return f"a power of a sum above {_MAX_GROUP_EXPONENT}"
        ends.append(end)
        if len(ends) > 3:
            return "powers nested deeper than 3"
        at = text.find("^", at + 1)
    return None


def _small_power(operand: str, rest: str) -> bool:
    match = re.fullmatch(r"\s?[{(]?\s?(\d{1,3})\s?\^\s?[{(]?\s?(\d)\s?[)}]*\s?", operand)
    return match is not None and not rest.lstrip().startswith("^") and int(match[1]) ** int(match[2]) <= _MAX_EXPONENT


def _operand(text: str, start: int) -> tuple[str, int]:
    """The exponent that begins at `start` and the index after it: a group, a command, or one character or number."""
    while start < len(text) and text[start] == " ":
        start += 1
    if start >= len(text):
        return "", start
    if text[start] in "{(":
        depth = 0
        for end in range(start, len(text)):
            depth += (text[end] in "{(") - (text[end] in "})")
            if depth == 0:
                return text[start : end + 1], end + 1
        return text[start:], len(text)
    match = re.compile(r"[-+]?\d+|\\[a-zA-Z]+|.").match(text, start)
    assert match is not None or text[start] == "\n"
    return (match.group(), match.end()) if match is not None else ("", start + 1)
