"""What the worker processes run: algebra on two answers. Runs only in the child process, the one place with sympy.

Nothing here prints, logs or turns a parsed expression into text: printing one can evaluate a tower of powers.
No string reaches `eval`, `sympify` or `parse_expr`; the only parser is latex2sympy's grammar.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from rewards.math.answer_parts import compare, parse_parts
from rewards.math.literal import Literal, literals_equal, parse_literal, split_unit
from rewards.math.numeric_equality import equations_equal, functions_equal

_FUNCTION = re.compile(
    r"(?<![a-zA-Z\\])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi|infty|sqrt)(?![a-zA-Z])"
)
_COMPLEX = re.compile(r"(?<![a-zA-Z\\])i(?![a-zA-Z])")
_ORDER = re.compile(r"[<>]|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])")
_DIGITS = 30  # of numeric comparison
_WARM_UP = (  # one of each kind, so that what is loaded when needed is loaded before any worker is forked
    ("x+1", "1+x"), ("x^2-1", "(x-1)(x+2)"), (r"\frac{x^2-4}{x-2}", "x+2"), (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\sin^2 t+\cos^2 t", "t"), (r"\ln(e^{2})+\log_2 8", "4"), (r"\frac{\pi}{3}", "60"), ("2+3i", "3i+2"),
    ("2x+y=3", "y=3-2x"), ("x>3", "3<x"), (r"x<1 \text{ or } x>3", r"(-\infty,1)\cup(3,\infty)"), 
    ("[0,2)", r"0 \le x<2"),
    (r"\{1,2\}", r"\{2,1\}"), (r"\begin{pmatrix}1&x\\2&3\end{pmatrix}", r"\begin{pmatrix}x&1\\2&3\end{pmatrix}"),
    (r"\int x", "x^2/2"), ("x!", r"\binom{x}{2}"), ("", "("),
)  # fmt: skip


class Unparsable(Exception):
    """latex2sympy could not read the text."""


def warm_up() -> None:
    """Load the imports and the grammar's tables, and fill caches that every worker then begins with."""
    for gold, answer in _WARM_UP:
        judge(gold, answer)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """The reply to a request, `{"gold": ..., "answer": ...}`; `rewards.sandbox.worker_process` calls this."""
    return judge(request["gold"], request["answer"])


def judge(gold: str, answer: str) -> dict[str, Any]:
    """`{"outcome": "equal" | "different" | "bad_reference" | "unparsed" | "crash", "detail": ...}` for two answers."""
    try:
        shaped = compare(gold, answer, _equal)
        if shaped is None:
            shaped = _sets_equal(gold, answer) or _equal(gold, answer)
        if shaped:
            return {"outcome": "equal"}
    except Unparsable:
        return {"outcome": "unparsed" if _readable(gold) else "bad_reference"}
    except MemoryError:
        return {"outcome": "crash", "detail": "out of memory"}
    except RecursionError:
        return {"outcome": "unparsed"}
    except Exception as error:  # sympy raises every kind of exception on odd input; its text may hold an expression
        return {"outcome": "crash", "detail": type(error).__name__}
    return {"outcome": "different"}


def _sets_equal(gold: str, answer: str) -> bool:
    """Unions of solved inequalities against unions of intervals, such as `x<1 or x>3` and `(-oo,1) cup (3,oo)`."""
    if not _ORDER.search(gold + answer):
        return False
    try:
        left, right = _as_set(gold), _as_set(answer)
        if left is None or right is None:
            return False
        return left == right or bool(left.symmetric_difference(right).is_empty)
    except (Unparsable, TypeError, ValueError, NotImplementedError):  # what sympy raises where it has no rule
        return False


def _as_set(text: str) -> Any:
    """The set of real numbers that `text` describes, None where it is not a union of solved inequalities or sets."""
    from sympy import And, Set, Union
    from sympy.core.relational import Relational

    pieces = []
    for part in parse_parts(text).parts if _ORDER.search(text) else (text,):
        parsed = _parse(part, False)
        if isinstance(parsed, (Relational, And)):
            if len(parsed.free_symbols) != 1 or not _solved(parsed):
                return None
            parsed = parsed.as_set()
        if not isinstance(parsed, Set):
            return None
        pieces.append(parsed)
    return Union(*pieces).doit() if pieces else None


def _readable(gold: str) -> bool:
    try:
        _parse_any(gold)
    except Unparsable:
        return False
    return True


def _parse_any(text: str) -> None:
    """Raise Unparsable unless `text`, or each part of the list that it is, can be read."""
    for part in parse_parts(text).parts:
        if parse_literal(part) is None:
            _parse(split_unit(part).text, False)


def _equal(gold: str, answer: str) -> bool:
    gold, answer = gold.strip(), answer.strip()
    if gold == answer:
        return True
    g, a = split_unit(gold), split_unit(answer)
    left, right = parse_literal(g.text), parse_literal(a.text)
    if left is not None and right is not None:
        return literals_equal(left, right)
    complex_numbers = bool(_COMPLEX.search(gold) or _COMPLEX.search(answer))
    return _expressions_equal(_parse(g.text, complex_numbers), _parse(a.text, complex_numbers), left, right)


@lru_cache(maxsize=512)
def _parse(text: str, complex_numbers: bool) -> Any:
    from latex2sympy2_extended import NormalizationConfig, latex2sympy, normalize_latex

    config = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    text = _plain_functions(text).lstrip("+ ")
    if "\\$" in text:
        raise Unparsable  # the grammar's normalisation would delete it and join what stands around it
    try:
        parsed = latex2sympy(normalize_latex(text, config), is_real=not complex_numbers, normalization_config=None)
    except RecursionError:
        raise
    except Exception as error:
        raise Unparsable from error
    if parsed is None or isinstance(parsed, str):
        raise Unparsable
    return parsed


def _plain_functions(text: str) -> str:
    """`sqrt(5)`, `2*pi` and `x^(1/2)` in LaTeX."""
    text = _FUNCTION.sub(r"\\\1", text).replace("*", r" \cdot ")
    for opening, replacement in ((r"\sqrt(", r"\sqrt{"), ("^(", "^{")):
        at = text.find(opening)
        while at >= 0:
            start = at + len(opening)
            end = _closing(text, start)
            if end < 0:
                break
            text = text[:at] + replacement + text[start:end] + "}" + text[end + 1 :]
            at = text.find(opening, at + 1)
    return text


def _closing(text: str, start: int) -> int:
    depth = 1
    for at in range(start, len(text)):
        depth += (text[at] == "(") - (text[at] == ")")
        if depth == 0:
            return at
    return -1


def _expressions_equal(gold: Any, answer: Any, left: Literal | None, right: Literal | None) -> bool:
    from math_verify import verify
    from sympy import Eq, Expr
    from sympy.core.relational import Relational
    from sympy.matrices.matrixbase import MatrixBase

    g_flat, a_flat = _elements(gold), _elements(answer)
    if isinstance(gold, MatrixBase) and a_flat is not None and g_flat is not None:
        shapes = not isinstance(answer, MatrixBase) or gold.shape == answer.shape
        vector = isinstance(answer, MatrixBase) or 1 in gold.shape
        pairs = zip(g_flat, a_flat, strict=False)
        return shapes and vector and len(g_flat) == len(a_flat) and all(_values_equal(x, y) for x, y in pairs)
    if _is_number(gold) and _is_number(answer):
        return _numbers_equal(gold, answer, left or right)
    if isinstance(gold, Expr) and isinstance(answer, Expr):
        sampled = functions_equal(gold, answer)
        if sampled is not None:
            return sampled
    if isinstance(gold, Eq) and isinstance(answer, Eq) and equations_equal(gold, answer):
        return True
    if isinstance(answer, Eq) and not isinstance(gold, Relational) and answer.rhs == 0 and not answer.lhs.is_Symbol:
        return False  # the equation to solve; math-verify would take its right side for the answer
    return bool(verify(gold, answer, timeout_seconds=None, allow_set_relation_comp=_solved(answer)))


def _values_equal(gold: Any, answer: Any) -> bool:
    return _expressions_equal(gold, answer, None, None)


def _elements(value: Any) -> list[Any] | None:
    from sympy import Tuple
    from sympy.matrices.matrixbase import MatrixBase

    if isinstance(value, MatrixBase):
        return list(value.flat())
    return list(value.args) if isinstance(value, Tuple) else None


def _is_number(value: Any) -> bool:
    from sympy import Expr

    return isinstance(value, Expr) and not value.free_symbols


def _numbers_equal(gold: Any, answer: Any, literal: Literal | None) -> bool:
    """Exactly where both are rational, else to 30 digits relative to their size, so that tiny numbers can differ."""
    from sympy import Float, N

    gold, answer = gold.doit(), answer.doit()
    if gold == answer:
        return bool(gold.is_comparable or gold.is_infinite or gold.is_complex)
    if gold.is_Rational and answer.is_Rational:
        return False
    g, a = N(gold, _DIGITS), N(answer, _DIGITS)
    difference = abs(N(g - a, _DIGITS))
    if not (g.is_finite and a.is_finite and difference.is_finite):
        return False
    if literal is not None and (literal.decimals or 0) >= 6:
        return bool(difference <= 0.5 * 10.0 ** -(literal.decimals or 0))
    inexact = bool(gold.atoms(Float) or answer.atoms(Float))
    size = max(abs(g), abs(a))
    return bool(difference <= size * 10.0 ** (-12 if inexact else 3 - _DIGITS))


def _solved(answer: Any) -> bool:
    """True for `x > 2` and `1 < x <= 2`, a bare variable bounded by numbers; False for what is yet to solve."""
    from sympy import And, Symbol
    from sympy.core.relational import Relational

    relations = answer.args if isinstance(answer, And) else (answer,)
    return all(
        isinstance(r, Relational)
        and any(isinstance(side, Symbol) and not other.free_symbols for side, other in ((r.lhs, r.rhs), (r.rhs, r.lhs)))
        for r in relations
    )
