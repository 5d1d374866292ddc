"""Is a mathematical answer equal to the reference? Strings, exact numbers and values first, algebra in a child process.

What counts as equal is written down in `docs/verifiers.md`. The reference is read once and cached; a reference that
cannot be read is `bad_reference` for every response but one that repeats it, never `correct`.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace

from rewards.extraction import extract_answer
from rewards.math.answer_parts import TUPLE_LABEL
from rewards.math.comparison import declared_parameter, equal, equal_sides, percent_agrees, rounds_to
from rewards.math.limits import MAX_ANSWER, refusal, unevaluated
from rewards.math.literal import literals_equal, parse_literal
from rewards.math.normalize import plain, to_latex
from rewards.math.prose import from_prose, is_prose, negated
from rewards.math.reading import _COMMAND, _ENVIRONMENT, MathAnswer, read_answer, read_reference
from rewards.math.spoken import clock_time, times_equal
from rewards.math.units import conversion, units_agree, values_differ
from rewards.sandbox.pool import Worker, WorkerDied, WorkerTimeout
from rewards.sentences import is_question, stated
from rewards.types import Task, Verdict, VerdictKind
from rewards.verifiers.base import BuiltInVerifier
from rewards.verifiers.equivalent_answers import all_numbers, is_one_line, with_thousands
from rewards.verifiers.verdicts import Found

_DECIMAL_COMMA = re.compile(r"-?\d{1,9},(?:\d{1,2}|\d{4,9})")  # three digits are thousands
_FRACTION = re.compile(r"(-?)(\d{1,12})/(\d{1,12})")
_SEVERAL = re.compile(r"[,;<>]|\\(?:pm|cup|le|ge|ne|lt|gt)(?![a-zA-Z])|\b(?:or|and)\b")
_UNSURE = re.compile(
    r"(?<![a-zA-Z\\])(?:either|maybe|perhaps|possibly|probably|alternatively)(?![a-zA-Z])", re.IGNORECASE
)
_OR = re.compile(r"(?<![a-zA-Z\\])or(?![a-zA-Z])|或|还是", re.IGNORECASE)
_ARITHMETIC = re.compile(r"[\d})]\s*(?:\+|-|\*|\\times|\\cdot)\s*(?=[\d({\\.])|\d\s*\(\s*\d")
_PRIMES = re.compile(r"\d\s?(?:['\"]|\^\s?\{?\s?\\prime)")
_POWER_OF_TEN = re.compile(r"(?:\\times|\\cdot|\*)\s*10\s*\^")
_BASE = re.compile(r"^[\dA-F]*\d\s*_\s*\{?\s*\d+\s*\}?$")
_LETTER = re.compile(r"(?<![A-Za-z\\])[a-zA-Z](?![A-Za-z])")
_LABELS = re.compile(r"(?<![A-Za-z])[A-Za-z][A-Za-z ]{1,30}\}?\s?[:=]")
_WORD = re.compile(r"(?<![\\A-Za-z])(?!sqrt|sinh|cosh|tanh|frac|asin|acos|atan|arc)[A-Za-z]{4,}")


class MathVerifier(BuiltInVerifier):
    """Compares the final answer of a response with the reference. Safe to call from any thread."""

    needs_worker = True

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._warm = False

    @staticmethod
    def rewritings(task: Task) -> dict[str, str]:
        """In dollars, as a LaTeX fraction, with thousands separators."""
        gold = task.answer.strip()
        cases = {"dollars": f"${gold}$"} if "$" not in gold and is_one_line(gold) else {}
        if fraction := _FRACTION.fullmatch(gold):
            sign, top, bottom = fraction.groups()
            cases["LaTeX fraction"] = rf"\boxed{{{sign}\frac{{{top}}}{{{bottom}}}}}"
            cases["display fraction"] = rf"\boxed{{{sign}\dfrac{{{top}}}{{{bottom}}}}}"
        return {**cases, **with_thousands(gold)}

    @staticmethod
    def cheats(task: Task) -> dict[str, str]:
        """All numbers at once."""
        return all_numbers()

    def __call__(self, response: str, reference: str, *, task: Task) -> Verdict:
        """Judge `response`; the verdict's rule names what decided. Never raises."""
        start = time.perf_counter()
        extraction = extract_answer(response if isinstance(response, str) else "")
        if extraction.answer is None:
            finding = Found(kind=VerdictKind.NO_ANSWER, rule=extraction.rule)
            if isinstance(bad := read_reference(reference), str):
                finding = Found(kind=VerdictKind.BAD_REFERENCE, rule="reference", detail=bad)
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

    def compare(self, answer: str, reference: str, *, rule: str = "box") -> Found:
        """Compare an extracted `answer` with `reference`; for the rules `anchor` and `line` it may be a sentence."""
        gold = read_reference(reference)
        if isinstance(gold, str):
            return Found(kind=VerdictKind.BAD_REFERENCE, rule="reference", detail=gold)
        if len(answer) > 4 * MAX_ANSWER:
            return Found(kind=VerdictKind.NO_ANSWER, rule="refused", detail=f"longer than {4 * MAX_ANSWER} characters")
        several = gold.literal is None and bool(_SEVERAL.search(gold.latex))
        if rule in ("anchor", "line", "tag", "json") and to_latex(answer) != gold.latex:
            if is_question(answer, last=rule == "line"):
                return Found(kind=VerdictKind.NO_ANSWER, rule="question")
            if not gold.words and _hedges(stated(answer, last=rule == "line"), several):
                return Found(kind=VerdictKind.NO_ANSWER, rule="hedge")
            answer = from_prose(answer, last=rule == "line")
        latex = to_latex(answer)
        if not latex:
            return Found(kind=VerdictKind.NO_ANSWER, rule="empty")
        if latex == gold.latex:
            return Found(kind=VerdictKind.CORRECT, rule="string")
        reason = refusal(latex)
        if reason is not None:
            return Found(kind=VerdictKind.NO_ANSWER, rule="refused", detail=reason)
        if not gold.words and _hedges(latex, several):
            return Found(kind=VerdictKind.NO_ANSWER, rule="hedge")
        return self._values(gold, read_answer(_declared(gold.latex, latex, answer), gold))

    def close(self) -> None:
        """Stop the worker process, if it runs."""
        self._worker.close()

    def _values(self, gold: MathAnswer, answer: MathAnswer) -> Found:
        quick = _quick(gold, answer)
        if quick is not None:
            return quick
        self._warm_up()
        wanted, given = _sides(gold, answer)
        found = equal(wanted, given)
        if found is False and answer.literal is not None and gold.literal is None:
            found = rounds_to(gold.core, answer.literal)
        if found is not None:
            return Found(kind=VerdictKind.CORRECT if found else VerdictKind.WRONG, rule="values")
        return self._algebra(wanted, _same_parameter(wanted, given))

    def _warm_up(self) -> None:
        """Let the worker process start beside the first comparison of formulas: it takes a second."""
        if not self._warm:
            self._warm = True
            threading.Thread(target=self._algebra, args=("x", "x"), daemon=True).start()

    def _algebra(self, gold: str, answer: str) -> Found:
        try:
            result = self._worker.call({"gold": gold, "answer": answer})
        except WorkerTimeout as error:
            return Found(kind=VerdictKind.TIMEOUT, rule="algebra", detail=str(error))
        except WorkerDied as error:
            return Found(kind=VerdictKind.CRASH, rule="algebra", detail=str(error))
        outcome = result["outcome"]
        if outcome == "equal":
            return Found(kind=VerdictKind.CORRECT, rule="algebra")
        if outcome == "bad_reference":
            return Found(kind=VerdictKind.BAD_REFERENCE, rule="algebra", detail="the reference cannot be parsed")
        if outcome == "crash":
            return Found(kind=VerdictKind.CRASH, rule="algebra", detail=str(result.get("detail", "")))
        return Found(kind=VerdictKind.WRONG, rule="unparsed" if outcome == "unparsed" else "algebra")


def _quick(gold: MathAnswer, answer: MathAnswer) -> Found | None:
    """What strings and exact numbers settle."""
    if gold.words:
        same = gold.words == (answer.words or plain(answer.latex))
        if same or r"\text" in gold.latex or " " in gold.words:
            return Found(kind=VerdictKind.CORRECT if same else VerdictKind.WRONG, rule="words")
    at = times_equal(gold.latex, answer.latex)
    if at is None and (written := clock_time(gold.latex)) is not None and written[1]:
        at = False  # a time of the day, and no such answer
    if at is not None:
        return Found(kind=VerdictKind.CORRECT if at else VerdictKind.WRONG, rule="time")
    if _BASE.search(gold.latex) or _BASE.search(answer.latex):
        same = re.sub(r"[\s{}]", "", gold.latex) == re.sub(r"[\s{}]", "", answer.latex)
        return Found(kind=VerdictKind.CORRECT if same else VerdictKind.WRONG, rule="base")
    if not units_agree(gold.unit, answer.unit):
        return Found(kind=VerdictKind.WRONG, rule="unit")
    if gold.literal is not None and gold.literal.decimals and _DECIMAL_COMMA.fullmatch(answer.core):
        written = parse_literal(answer.core.replace(",", "."))
        same = written is not None and literals_equal(gold.literal, written, conversion(gold.unit, answer.unit))
        return Found(kind=VerdictKind.CORRECT if same else VerdictKind.WRONG, rule="decimal-comma")
    if gold.literal is not None and answer.literal is not None and not (gold.label and answer.label):
        same = not values_differ(gold.unit, answer.unit) and percent_agrees(gold.literal, answer.unit)
        same = same and percent_agrees(answer.literal, gold.unit)
        same = same and literals_equal(gold.literal, answer.literal, conversion(gold.unit, answer.unit))
        return Found(kind=VerdictKind.CORRECT if same else VerdictKind.WRONG, rule="exact-rational")
    if gold.core == answer.core and gold.unit == answer.unit and not (gold.label and answer.label):
        return Found(kind=VerdictKind.CORRECT, rule="string")
    if bool(_PRIMES.search(gold.core)) != bool(_PRIMES.search(answer.core)):
        return Found(kind=VerdictKind.WRONG, rule="unit")  # minutes, feet or inches
    if gold.literal is not None and _restated(answer.core):
        return Found(kind=VerdictKind.WRONG, rule="restated")
    if unevaluated(answer.core) and not unevaluated(gold.core):
        return Found(kind=VerdictKind.WRONG, rule="unevaluated")
    if negated(answer.core):
        return Found(kind=VerdictKind.WRONG, rule="negated")
    if _wordy(answer.core) and (gold.literal is not None or not _wordy(gold.core)):
        return Found(kind=VerdictKind.WRONG, rule="prose")
    return None


def _hedges(text: str, several: bool) -> bool:
    """True where `text` offers another value; "or" may stand in an answer of several parts."""
    return _UNSURE.search(text) is not None or (not several and _OR.search(text) is not None)


def _wordy(text: str) -> bool:
    """True where words stand in `text` that are no names of functions: prose, or code."""
    bare = _LABELS.sub(" ", _ENVIRONMENT.sub(" ", text.replace(r"\text", "")))
    return is_prose(bare) or _WORD.search(bare) is not None


def _sides(gold: MathAnswer, answer: MathAnswer) -> tuple[str, str]:
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


def _with_unit(side: MathAnswer) -> str:
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
