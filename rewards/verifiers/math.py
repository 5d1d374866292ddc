"""Is a mathematical answer equal to the reference? Strings, exact numbers and values first, algebra in a child process.

What counts as equal is written down in `docs/verifiers.md`. The reference is read once and cached; a reference that
cannot be read is `bad_reference` for every response but one that repeats it, never `correct`.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, replace
from functools import lru_cache

from rewards.extraction import extract_answer, first_sentence, last_box
from rewards.math.comparison import LABEL, declared_parameter, equal, equal_sides, percent_agrees, rounds_to
from rewards.math.limits import MAX_ANSWER, MAX_REFERENCE, refusal, unevaluated
from rewards.math.literal import Literal, literals_equal, parse_literal
from rewards.math.normalize import plain, to_latex
from rewards.math.prose import from_prose, is_prose, negated
from rewards.math.spoken import times_equal
from rewards.math.structure import TUPLE_LABEL
from rewards.math.units import conversion, split_unit, units_agree, values_differ
from rewards.sandbox.pool import Worker, WorkerDied, WorkerTimeout
from rewards.types import Task, Verdict, VerdictKind

_SEVERAL = re.compile(r"[,;<>]|\\(?:pm|cup|le|ge|ne|lt|gt)(?![a-zA-Z])|\b(?:or|and)\b")
_HEDGE = re.compile(r"(?<![a-zA-Z\\])(?:or|either|maybe|perhaps|possibly|probably)(?![a-zA-Z])|或|还是", re.IGNORECASE)
_ARITHMETIC = re.compile(r"[\d})]\s*(?:\+|-|\*|\\times|\\cdot)\s*(?=[\d({\\.])|\d\s*\(\s*\d")
_POWER_OF_TEN = re.compile(r"(?:\\times|\\cdot|\*)\s*10\s*\^")
_BASE = re.compile(r"^[\dA-F]*\d\s*_\s*\{?\s*\d+\s*\}?$")
_LETTER = re.compile(r"(?<![A-Za-z\\])[a-zA-Z](?![A-Za-z])")
_WORDS = re.compile(r"[A-Za-z]{2,}")
_LABELS = re.compile(r"(?<![A-Za-z])[A-Za-z][A-Za-z ]{1,30}\}?\s?[:=]")
_WORD = re.compile(r"(?<![\\A-Za-z])(?!sqrt|sinh|cosh|tanh|frac|asin|acos|atan|arc)[A-Za-z]{4,}")
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
class Answer:
    """One side of a comparison: its spelling and what has been taken off it."""

    latex: str  # the whole, normalised
    core: str  # without label and unit
    label: str  # the `x` of `x = 5`, else ""
    unit: str
    literal: Literal | None
    words: str  # where it is plain words: how they compare; else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The outcome of a comparison, before it becomes a verdict."""

    kind: VerdictKind
    rule: str
    detail: str = ""


class MathVerifier:
    """Compares the final answer of a response with the reference. Safe to call from any thread."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._warm = False

    def __call__(self, response: str, reference: str, *, task: Task) -> Verdict:
        """Judge `response`; the verdict's rule names what decided. Never raises."""
        start = time.perf_counter()
        extraction = extract_answer(response if isinstance(response, str) else "")
        if extraction.answer is None:
            finding = Finding(kind=VerdictKind.NO_ANSWER, rule=extraction.rule)
            if isinstance(bad := read_reference(reference), str):
                finding = Finding(kind=VerdictKind.BAD_REFERENCE, rule="reference", detail=bad)
            text = None
        else:
            text = extraction.answer
            finding = self.compare(text, reference, rule=extraction.rule)
            finding = replace(finding, rule=f"{extraction.rule}/{finding.rule}")
        return Verdict(
            kind=finding.kind,
            score=float(finding.kind is VerdictKind.CORRECT),
            extracted=text[:500] if text is not None else None,
            rule=finding.rule,
            seconds=time.perf_counter() - start,
            detail=finding.detail,
        )

    def compare(self, answer: str, reference: str, *, rule: str = "box") -> Finding:
        """Compare an extracted `answer` with `reference`; for the rules `anchor` and `line` it may be a sentence."""
        gold = read_reference(reference)
        if isinstance(gold, str):
            return Finding(kind=VerdictKind.BAD_REFERENCE, rule="reference", detail=gold)
        if len(answer) > 4 * MAX_ANSWER:
            return Finding(
                kind=VerdictKind.NO_ANSWER, rule="refused", detail=f"longer than {4 * MAX_ANSWER} characters"
            )
        several = bool(_SEVERAL.search(gold.latex))
        if rule in ("anchor", "line", "tag", "json") and to_latex(answer) != gold.latex:
            if not several and _HEDGE.search(first_sentence(answer)) and not gold.words:
                return Finding(kind=VerdictKind.NO_ANSWER, rule="hedge")
            answer = from_prose(answer, last=rule == "line")
        latex = to_latex(answer)
        if not latex:
            return Finding(kind=VerdictKind.NO_ANSWER, rule="empty")
        if latex == gold.latex:
            return Finding(kind=VerdictKind.CORRECT, rule="string")
        reason = refusal(latex)
        if reason is not None:
            return Finding(kind=VerdictKind.NO_ANSWER, rule="refused", detail=reason)
        if _HEDGE.search(latex) and not several and not gold.words:
            return Finding(kind=VerdictKind.NO_ANSWER, rule="hedge")
        return self._values(gold, read_answer(_declared(gold.latex, latex, answer), gold))

    def close(self) -> None:
        """Stop the worker process, if it runs."""
        self._worker.close()

    def _values(self, gold: Answer, answer: Answer) -> Finding:
        quick = _quick(gold, answer)
        if quick is not None:
            return quick
        self._warm_up()
        wanted, given = _sides(gold, answer)
        found = equal(wanted, given)
        if found is False and answer.literal is not None and gold.literal is None:
            found = rounds_to(gold.core, answer.literal)
        if found is not None:
            return Finding(kind=VerdictKind.CORRECT if found else VerdictKind.WRONG, rule="values")
        return self._algebra(wanted, _same_parameter(wanted, given))

    def _warm_up(self) -> None:
        """Let the worker process start beside the first comparison of formulas: it takes a second."""
        if not self._warm:
            self._warm = True
            threading.Thread(target=self._algebra, args=("x", "x"), daemon=True).start()

    def _algebra(self, gold: str, answer: str) -> Finding:
        try:
            result = self._worker.call({"gold": gold, "answer": answer})
        except WorkerTimeout as error:
            return Finding(kind=VerdictKind.TIMEOUT, rule="algebra", detail=str(error))
        except WorkerDied as error:
            return Finding(kind=VerdictKind.CRASH, rule="algebra", detail=str(error))
        outcome = result["outcome"]
        if outcome == "equal":
            return Finding(kind=VerdictKind.CORRECT, rule="algebra")
        if outcome == "bad_reference":
            return Finding(kind=VerdictKind.BAD_REFERENCE, rule="algebra", detail="the reference cannot be parsed")
        if outcome == "crash":
            return Finding(kind=VerdictKind.CRASH, rule="algebra", detail=str(result.get("detail", "")))
        return Finding(kind=VerdictKind.WRONG, rule="unparsed" if outcome == "unparsed" else "algebra")


@lru_cache(maxsize=4096)
def read_reference(reference: str) -> Answer | str:
    """The reference, read; or why it cannot be used."""
    if len(reference) > MAX_REFERENCE:
        return f"longer than {MAX_REFERENCE} characters"
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


def read_answer(latex: str, gold: Answer) -> Answer:
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


def _read(latex: str, *, gold: bool) -> Answer:
    if gold and r"\approx" in latex:
        latex = latex.partition(r"\approx")[0].strip()
    label, core = _unlabel(latex, gold=gold)
    measure = split_unit(core)
    literal = parse_literal(measure.text)
    if literal is None:
        whole = parse_literal(core)
        if whole is not None:
            return Answer(latex=latex, core=core, label=label, unit="", literal=whole, words="")
    words = _as_words(latex)
    return Answer(latex=latex, core=measure.text, label=label, unit=measure.unit, literal=literal, words=words)


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
        return "", last  # `7 + 4 = 11`: the value is at the end
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


def _quick(gold: Answer, answer: Answer) -> Finding | None:
    """What strings and exact numbers settle."""
    if gold.words:
        same = gold.words == (answer.words or plain(answer.latex))
        if same or r"\text" in gold.latex or " " in gold.words:
            return Finding(kind=VerdictKind.CORRECT if same else VerdictKind.WRONG, rule="words")
    at = times_equal(gold.latex, answer.latex)
    if at is not None:
        return Finding(kind=VerdictKind.CORRECT if at else VerdictKind.WRONG, rule="time")
    if _BASE.search(gold.latex) or _BASE.search(answer.latex):
        same = re.sub(r"[\s{}]", "", gold.latex) == re.sub(r"[\s{}]", "", answer.latex)
        return Finding(kind=VerdictKind.CORRECT if same else VerdictKind.WRONG, rule="base")
    if not units_agree(gold.unit, answer.unit):
        return Finding(kind=VerdictKind.WRONG, rule="unit")
    if gold.literal is not None and answer.literal is not None and not (gold.label and answer.label):
        same = not values_differ(gold.unit, answer.unit) and percent_agrees(gold.literal, answer.unit)
        same = same and percent_agrees(answer.literal, gold.unit)
        same = same and literals_equal(gold.literal, answer.literal, conversion(gold.unit, answer.unit))
        return Finding(kind=VerdictKind.CORRECT if same else VerdictKind.WRONG, rule="exact-rational")
    if gold.core == answer.core and gold.unit == answer.unit and not (gold.label and answer.label):
        return Finding(kind=VerdictKind.CORRECT, rule="string")
    if gold.literal is not None and _restated(answer.core):
        return Finding(kind=VerdictKind.WRONG, rule="restated")
    if unevaluated(answer.core) and not unevaluated(gold.core):
        return Finding(kind=VerdictKind.WRONG, rule="unevaluated")
    if negated(answer.core):
        return Finding(kind=VerdictKind.WRONG, rule="negated")
    if _wordy(answer.core) and (gold.literal is not None or not _wordy(gold.core)):
        return Finding(kind=VerdictKind.WRONG, rule="prose")
    return None


def _wordy(text: str) -> bool:
    """True where words stand in `text` that are no names of functions: prose, or code."""
    bare = _LABELS.sub(" ", _ENVIRONMENT.sub(" ", text.replace(r"\text", "")))
    return is_prose(bare) or _WORD.search(bare) is not None


def _sides(gold: Answer, answer: Answer) -> tuple[str, str]:
    """What to compare: with labels where both have one, without where one has."""
    if gold.label and answer.label:
        return gold.latex, answer.latex
    if not gold.label and len(equal_sides(gold.core)) > 1:
        return gold.core, answer.latex
    if gold.label and len(equal_sides(answer.core)) > 1:
        return gold.latex, answer.latex
    if gold.unit != answer.unit:
        return _with_unit(gold), _with_unit(answer)
    return gold.core, answer.core


def _with_unit(side: Answer) -> str:
    """Everything but the label, so that degrees, lengths and hours can be converted."""
    return side.latex.rpartition("=")[2].strip() if side.label else side.latex


def _declared(gold: str, latex: str, raw: str) -> str:
    """`latex` with the parameter that the answer declares (`t \\in \\mathbb{Z}`) called as the reference calls it."""
    name = declared_parameter(raw)
    if not name:
        return latex
    wanted, given = (set(_LETTER.findall(_COMMAND.sub(" ", TUPLE_LABEL.sub("", text)))) for text in (gold, latex))
    new = wanted - given
    if name not in given or name in wanted or len(new) != 1:
        return latex
    return re.sub(rf"(?<![\\A-Za-z]){name}(?![A-Za-z])", new.pop(), latex)


def _same_parameter(gold: str, answer: str) -> str:
    r"""`answer` with the integer of `n\pi` called as the reference calls it."""
    if r"\pi" not in gold or r"\pi" not in answer:
        return answer
    wanted, given = ({*_LETTER.findall(_COMMAND.sub(" ", text))} for text in (gold, answer))
    new, old = wanted - given, given - wanted
    if len(new) == 1 and len(old) == 1 and new | old <= set("kmnlp"):
        return re.sub(rf"(?<![\\A-Za-z]){old.pop()}(?![A-Za-z])", new.pop(), answer)
    return answer


def _restated(text: str) -> bool:
    """True for arithmetic on numbers alone, such as `7 + 4 * 3`: the question, not its answer."""
    without = _COMMAND.sub("", text)
    if re.search(r"[A-Za-z]", without) or r"\sqrt" in text or r"\pi" in text:
        return False
    return bool(_ARITHMETIC.search(_POWER_OF_TEN.sub("^", text)))
