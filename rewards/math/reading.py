"""One side of a comparison, read: label, unit, number or words, and what is left. References are read once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rewards.extraction import extract_answer, last_box, visible
from rewards.math.comparison import LABEL, equal_sides
from rewards.math.limits import MAX_REFERENCE, refusal
from rewards.math.literal import Literal, literals_equal, parse_literal
from rewards.math.normalize import plain, to_latex
from rewards.math.units import split_unit

_WORDS = re.compile(r"[A-Za-z]{2,}")


_COMMAND = re.compile(r"\\[A-Za-z]+")


_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-zA-Z]{1,12}\*?\}")


_RELATION = re.compile(r"[<>]|\\(?:le|ge|ne|lt|gt)(?![a-zA-Z])|\\text\s*\{\s*or")


_JOINT = re.compile(r"[,;]|\b(?:and|or)\b")


_TEXT_COMMAND = re.compile(r"\\text\s*\{")


_WRITTEN = re.compile(r"\w|\\(?:infty|emptyset|pi|varnothing)")


_SYNONYMS = {
    "no solution": "none", "no solutions": "none", "no real solution": "none", "no real solutions": "none",
    "there is no solution": "none", "there are no solutions": "none", "empty set": "none", "the empty set": "none",
    "infinite": "infinitely many", "infinitely many solutions": "infinitely many", "does not exist": "undefined",
    "dne": "undefined", "all real numbers": "all reals", "any real number": "all reals",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class MathAnswer:
    """One side of a comparison: its spelling and what has been taken off it."""

    latex: str  # the whole, normalised
    core: str  # without label and unit
    label: str  # the `x` of `x = 5`, else ""
    unit: str
    literal: Literal | None
    words: str  # where it is plain words: how they compare; else ""


@lru_cache(maxsize=4096)
def read_reference(reference: str) -> MathAnswer | str:
    """The reference, read; or why it cannot be used."""
    if len(reference) > MAX_REFERENCE:
        return f"longer than {MAX_REFERENCE} characters"
    reference = visible(reference)
    boxed = last_box(reference)
    if boxed is None and len(reference) > 200:
        found = extract_answer(reference)
        boxed = found.answer if found.rule == "anchor" else None
    latex = to_latex(boxed if boxed is not None else reference)
    if not _WRITTEN.search(latex):
        return "empty, or without a letter or digit"
    braces = re.sub(r"\\[{}]", "", latex)
    if braces.count("{") != braces.count("}"):
        return "its braces do not match"
    reason = refusal(latex, longest=MAX_REFERENCE)
    return reason if reason is not None else _read(latex, gold=True)


def read_answer(latex: str, gold: MathAnswer) -> MathAnswer:
    r"""Read a normalised answer: of `x = 5` or of a chain, its last value, where the reference is no equation."""
    if r"\approx" in latex:
        first, _, last = latex.partition(r"\approx")
        exact = gold.literal is None or gold.literal.decimals is None
        latex = (
            first.strip()
            if exact and parse_literal(first.strip()) is None and not LABEL.match(first.strip())
            else last.strip()
        )
    return _read(latex, gold=False)


def _read(latex: str, *, gold: bool) -> MathAnswer:
    if gold and r"\approx" in latex:
        latex = latex.partition(r"\approx")[0].strip()
    label, core = _unlabel(latex, gold=gold)
    measure = split_unit(core)
    literal = parse_literal(measure.text)
    if literal is None:
        whole = parse_literal(core)
        if whole is not None:
            return MathAnswer(latex=latex, core=core, label=label, unit="", literal=whole, words="")
    words = _as_words(latex)
    return MathAnswer(latex=latex, core=measure.text, label=label, unit=measure.unit, literal=literal, words=words)


def _unlabel(latex: str, *, gold: bool) -> tuple[str, str]:
    """Split `x = 5` into ("x", "5"); an equation that is the answer itself, or a list of labels, stays whole."""
    pieces = [piece.strip() for piece in equal_sides(latex)]
    if len(pieces) < 2 or any(not piece for piece in pieces) or _labelled_list(latex) or _RELATION.search(latex):
        return "", latex
    first, last = pieces[0], pieces[-1]
    if LABEL.match(first):
        return first, last
    if LABEL.match(last) and parse_literal(first) is not None:
        return last, first
    if re.search(r"[,;<>]|\\(?:le|ge|ne|text)(?![a-zA-Z])", first):
        return "", latex
    if not re.search(r"[A-Za-z]", _COMMAND.sub("", _ENVIRONMENT.sub("", first))):
        one, other = parse_literal(first), parse_literal(last)
        same = one is None or other is None or literals_equal(one, other)
        return "", last if same else latex  # `7 + 4 = 11`: the value is at the end; `5 = 6` is none
    value = parse_literal(split_unit(last).text)
    named = not gold and "^" not in first  # `a + b = 12`, but not the equation of a curve
    if value is not None and value.value != 0 and len(pieces) == 2 and (named or r"\angle" in first):
        return first, last
    return "", latex


def _labelled_list(latex: str) -> bool:
    """True where an equality sign follows a comma or an "and": `x = 1, y = 2`."""
    first = _JOINT.search(latex)
    return first is not None and "=" in latex[first.end() :]


def _as_words(latex: str) -> str:
    if latex in (r"\emptyset", r"\varnothing", r"\{\}"):
        return "none"
    without = _TEXT_COMMAND.sub("", latex)
    if re.search(r"[\d\\^_=+<>]", without) or not _WORDS.search(without):
        return ""
    if r"\text" not in latex and " " not in latex and len(latex) < 3:
        return ""
    words = re.sub(r",?\s+and\s+|\s*,\s*", ", ", plain(latex))
    return _SYNONYMS.get(words, words)
