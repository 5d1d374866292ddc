r"""Are two answers equal? Decided in this process, with our own grammar and bounded arithmetic, where that is possible.

`equal` tries, in this order: the same string, sets of numbers, ratios, matrices and vectors, lists and tuples part by
part, equations, formulas by their values. What it cannot read is `None`: then the worker process decides.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rewards.math.answer_parts import compare
from rewards.math.evaluation import context, number
from rewards.math.formula import Unreadable, parse_formula
from rewards.math.intervals import RELATION, chains_equal, may_be_region, regions_equal, split_at
from rewards.math.literal import Literal, literals_equal, parse_literal
from rewards.math.matrices import matrices_equal
from rewards.math.nodes import Node, letters, rename
from rewards.math.normalize import plain
from rewards.math.units import Measure, conversion, split_unit, units_agree
from rewards.math.values import nodes_equal, proportional, value_of

EQUALS = re.compile(r"(?<![<>!:\\=])=(?!=)")


def equal_sides(text: str) -> list[str]:
    """`text` split at the equality signs that stand outside of brackets and subscripts."""
    return split_at(text, EQUALS) if "=" in text else [text]


LABEL = re.compile(
    r"^(?:[A-Z]{1,4}(?:_\{?\w\}?)?(?:\s?:\s?[A-Z]{1,4}(?:_\{?\w\}?)?){1,3}$|(?:\\text\s?\{[A-Za-z .]{1,40}\}"
    r"|[A-Za-z]{1,12}(?: [A-Za-z]{1,12}){0,3}|\\[a-zA-Z]{1,20}(?:\s?[A-Z]{1,4})?|\|[\\a-zA-Z ]{1,20}\|)"
    r"(?:_\{(?:[^{}=]|\{[^{}]{0,20}\}){1,30}\}|_\\?\w{1,8})?'*(?:\^\{-1\})?(?:\([a-zA-Z](?:,\s?[a-zA-Z])*\)|\([-\d]{1,4}\)|\([A-Z]\s?[=<>][^()]{1,12}\))?'*$)"
)
_CONDITION = re.compile(r"^\\text\s*\{\s*,?\s*(?:if|for|when|where)\s*\}|^(?:if|for|when)\s|,\s*$")
_TRANSPOSED = re.compile(r"^((?:\(|\[)[^\\]{1,200}(?:\)|\]))\s?\^\s?\{?\s?(?:T|\\top)\s?\}?$")
_COLON = re.compile(":")
_PARAMETER = re.compile(
    r"(?<![a-zA-Z\\])([a-zA-Z])\s*(?:\\in|∈)\s*\\?(?:mathbb)?\s*\{?\s*[ZNQRℤℕ]"
    r"|(?:any|some|every|all|each|arbitrary|an)\s+(?:(?:real|positive|non-?negative|nonzero)\s+)?"
    r"(?:integers?|numbers?|constants?|parameters?)[\s},$]{1,4}([a-zA-Z])(?![a-zA-Z])"
    r"|(?<![a-zA-Z\\])([a-zA-Z])\s*(?:\\text\s*\{)?\s*is an? (?:arbitrary )?(?:integer|real number|constant|parameter)"
)
_RUN = re.compile(r"[A-Za-z]{3,}")
_SPACE = re.compile(r"(?<!\d)\s+|\s+(?!\d)")
_CHANGEABLE = frozenset("kmnlpqtscrC")  # what people call a free integer or constant


class _Undecided(Exception):
    """A part could not be read here."""


def equal(gold: str, answer: str) -> bool | None:
    """True or False where the outcome is certain, None where only algebra can tell. Normalised LaTeX, bounded work."""
    if _SPACE.sub("", gold) == _SPACE.sub("", answer):
        return True
    try:
        return _shaped(_TRANSPOSED.sub(r"\1", gold), _TRANSPOSED.sub(r"\1", answer))
    except _Undecided:
        return None


def _decided(found: bool | None) -> bool:
    if found is None:
        raise _Undecided
    return found


def _shaped(gold: str, answer: str) -> bool:
    if may_be_region(gold, answer):
        found = regions_equal(gold, answer)
        if found is None and RELATION.search(gold) and RELATION.search(answer):
            found = chains_equal(gold, answer)
        if found is not None:
            return found
    if (gold.count(":") > 1 or answer.count(":") > 1) and "," not in gold + answer:
        return _ratios(gold, answer)
    if "\\begin" in gold + answer:
        return _decided(matrices_equal(split_label(gold)[1], split_label(answer)[1], _cell))
    found = compare(gold, answer, _part)
    return _part(gold, answer) if found is None else found


def _cell(gold: str, answer: str) -> bool:
    """Two cells of a matrix, or of the cases of a function with their conditions."""
    return _shaped(*(_CONDITION.sub("", text) for text in (gold, answer)))


def _part(gold: str, answer: str) -> bool:
    """Two parts that are no lists."""
    gold, answer = gold.strip(), answer.strip()
    if gold == answer:
        return True
    (g_label, g_value), (a_label, a_value) = split_label(gold), split_label(answer)
    if g_label and a_label:
        if same_label(g_label, a_label):
            return _value(g_value, a_value)
        if function_of(g_label) and function_of(a_label) and g_label[0] == a_label[0]:
            return _bound(g_label, g_value, a_label, a_value)
        return bool(_equations(gold, answer))
    if len(equal_sides(gold)) > 1 and len(equal_sides(answer)) > 1:
        return _decided(_equations(gold, answer))
    if g_label or a_label:
        return _value(g_value if g_label else gold, a_value if a_label else answer)
    if len(equal_sides(gold)) > 1 or len(equal_sides(answer)) > 1:
        return False
    return _value(gold, answer)


def _value(gold: str, answer: str) -> bool:
    g, a = split_unit(gold), split_unit(answer)
    if g.unit != a.unit and "" in (g.unit, a.unit):  # `0.64N` beside `0.64 N`
        g, a = _touching(g, a.unit), _touching(a, g.unit)
    if not units_agree(g.unit, a.unit):
        return False
    factor = conversion(g.unit, a.unit)
    left, right = parse_literal(g.text), parse_literal(a.text)
    if left is not None and right is not None:
        return percent_agrees(left, a.unit) and percent_agrees(right, g.unit) and literals_equal(left, right, factor)
    if plain(g.text) == plain(a.text) and "\\text" in g.text + a.text:
        return True
    if _RUN.fullmatch(g.text) and _RUN.fullmatch(a.text):
        return len(g.text) > 3 and g.text.casefold() == a.text.casefold()  # a word or a name, no product
    try:
        x, y = parse_formula(g.text), parse_formula(a.text)
    except Unreadable:
        if "\\text" in gold and "\\text" in answer and not re.search(r"\d", gold + answer):
            return False
        raise _Undecided from None
    if factor != 1:
        y = Node("mul", (Node("num", value=factor), y))
    if "deg" in (g.unit, a.unit) and g.unit != a.unit:
        x, y = (Node("deg", (n,)) if unit == "deg" and "\\pi" in other else n
                for n, unit, other in ((x, g.unit, a.text), (y, a.unit, g.text)))  # fmt: skip
    found = nodes_equal(x, renamed(x, y))
    if not found and any(name.startswith(("\\sum", "\\prod", "\\int", "\\lim")) for name in letters(x) | letters(y)):
        raise _Undecided
    return _decided(found)


def rounds_to(gold: str, answer: Literal) -> bool:
    """True where `answer` has six decimals or more and is the irrational number `gold` rounded to them."""
    if answer.decimals is None or answer.decimals < 6 or answer.percent:
        return False
    try:
        value = value_of(parse_formula(gold))
    except Unreadable:
        return False
    if value is None or isinstance(value, Fraction):
        return False
    ctx = context()
    exact = number(ctx, value)
    if not isinstance(exact, ctx.mpf):
        return False
    return bool(abs(exact - number(ctx, answer.value)) <= ctx.mpf(10) ** -answer.decimals * ctx.mpf("0.501"))


def percent_agrees(literal: Literal, unit: str) -> bool:
    """False where a percentage stands beside a value in another unit: 60% is not 60 degrees."""
    return not (literal.percent and unit)


def _touching(side: Measure, unit: str) -> Measure:
    """`side` with `unit` off, which the other side has, where it touches the number."""
    if side.unit or not unit or not side.text.endswith(unit) or not side.text[: -len(unit)][-1:].isdigit():
        return side
    return Measure(text=side.text[: -len(unit)], unit=unit)


def _ratios(gold: str, answer: str) -> bool:
    """`1:2:3` and `2:4:6`: the same up to a common factor."""
    left, right = split_at(split_label(gold)[1], _COLON), split_at(split_label(answer)[1], _COLON)
    if len(left) != len(right):
        return False
    try:
        a, b = ([parse_formula(term) for term in terms] for terms in (left, right))
    except Unreadable:
        raise _Undecided from None
    return all(_decided(nodes_equal(Node("mul", (x, b[0])), Node("mul", (y, a[0])))) for x, y in zip(a, b, strict=True))


def _equations(gold: str, answer: str) -> bool | None:
    """True where `lhs - rhs` of the one is a multiple of that of the other; None where one cannot be read."""
    pair = []
    for text in (gold, answer):
        sides = equal_sides(text)
        if len(sides) != 2:
            return None if len(sides) > 2 else False
        try:
            left, right = (parse_formula(side.strip()) for side in sides)
        except Unreadable:
            return None
        pair.append(Node("add", (left, Node("neg", (right,)))))
    return proportional(*pair)


def split_label(text: str) -> tuple[str, str]:
    """Split `x = 5` into ("x", "5"), `5 = x` as well; ("", text) where there is no label."""
    pieces = equal_sides(text)
    if len(pieces) < 2 or not all(piece.strip() for piece in pieces):
        colon = re.match(r"^([A-Za-z][A-Za-z ]{2,30}|\\text\s*\{[A-Za-z ]{3,30}\})\s*:\s*(?=\S)", text)
        return (colon[1].strip(), text[colon.end() :].strip()) if colon is not None else ("", text)
    first, last = pieces[0].strip(), pieces[-1].strip()
    if LABEL.match(first):
        return first, last
    if LABEL.match(last) and (len(pieces) == 2 and parse_literal(first) is not None):
        return last, first
    return "", text


def same_label(one: str, other: str) -> bool:
    """True for two spellings of one label: `S_n` and `S_{n}`, `\\text{Area}` and `area`."""
    a, b = _bare(one), _bare(other)
    return a == b or re.sub(r"_\d$", "", a) == b or a == re.sub(r"_\d$", "", b)


def _bare(label: str) -> str:
    label = re.sub(r"\\text|[{}\s]", "", label)
    return label.casefold() if len(re.sub(r"_.*", "", label)) > 2 else label


def function_of(label: str) -> str:
    """The variable of `f(x)`, else ""."""
    match = re.fullmatch(r"[A-Za-z]\(([a-zA-Z])\)", label)
    return match[1] if match is not None else ""


def _bound(g_label: str, gold: str, a_label: str, answer: str) -> bool:
    """`f(x) = x + 1` and `f(t) = t + 1`: the bound variable may have another name."""
    try:
        left, right = parse_formula(gold), parse_formula(answer)
    except Unreadable:
        raise _Undecided from None
    new, old = function_of(g_label), function_of(a_label)
    if new in letters(right):
        return False
    return _decided(nodes_equal(left, rename(right, old, new)))


def renamed(gold: Node, answer: Node) -> Node:
    r"""`answer` with its one free constant called as in `gold`, where only it differs: `n\pi` and `k\pi`, `C` and `c`.

    Only letters that people use for a free integer or constant count, beside another term or factor: `x` is not `y`.
    """
    wanted, given = letters(gold), letters(answer)
    new, old = wanted - given, given - wanted
    if len(new) != 1 or len(old) != 1:
        return answer
    (n,), (o,) = new, old
    case = n.casefold() == o.casefold()
    free = n[0] in _CHANGEABLE and o[0] in _CHANGEABLE and (_has_pi(gold) or n[0] in "Cc")
    return rename(answer, o, n) if (case and answer.op != "sym") or (free and answer.op != "sym") else answer


def _has_pi(node: Node) -> bool:
    return node.op == "deg" or (node.op == "const" and node.name == "pi") or any(_has_pi(arg) for arg in node.args)


def declared_parameter(text: str) -> str:
    r"""The letter of `t \in \mathbb{Z}` in `text`, else ""."""
    match = _PARAMETER.search(text)
    return next((name for name in match.groups() if name), "") if match is not None else ""
