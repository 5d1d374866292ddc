"""The answer rules of public benchmarks: ChartQA, OCRBench, MathVista, MATH-Vision. MMMU's is in `mmmu_open`.

They measure a model as its benchmark does, and are laxer than the other verifiers: do not train on them. Where the
official code extracts the answer with a language model, ours extracts it by `rewards.extraction`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from fractions import Fraction
from typing import Any

from rewards.extraction import Extraction, extract_answer
from rewards.math.evaluation import context, number
from rewards.math.formula import Unreadable, parse_formula
from rewards.math.literal import parse_literal
from rewards.math.normalize import to_latex, unwrap
from rewards.math.units import split_unit
from rewards.math.values import value_of
from rewards.types import Task, VerdictKind
from rewards.verifiers.base import ExtractingVerifier
from rewards.verifiers.math import MathVerifier
from rewards.verifiers.numeric import Number, number_in, read_number
from rewards.verifiers.verdicts import Found, bad_reference, correct_if, no_answer, whole_text

_CLOSING = re.compile(  # of a chat; a language model that extracts the answer passes over it
    r"\s{0,9}(?:I hope (?:this|that)|(?:Please )?let me know if|Is there anything else|Do you (?:have|want|need)"
    r"|Would you like|Feel free)\b",
    re.IGNORECASE,
)
_LIST = re.compile(r"\[[^\[\]]{0,2000}\]")
_LONGEST = 20_000  # characters of a list that are searched: the last
_EDGE = " \t\n*\"'`$"


class RelaxedVerifier(ExtractingVerifier):
    """ChartQA's relaxed accuracy: a number within 5 % of the reference, else the same text in any case.

    As in `relaxed_correctness` of EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/chartqa/utils.py, which cites the end of
    section 5.1 of arXiv:2203.10244. A percentage is divided by 100 there: `45%` is 0.45 and not 45.
    """

    _TOLERANCE = Fraction(1, 20)

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        if not reference.strip():
            return bad_reference("is empty")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        if _bare(extraction.answer) == _bare(reference):
            return correct_if(True, f"{extraction.rule}/text")
        gold, given = read_number(reference), number_in(extraction)
        if gold is None or isinstance(given, str):
            return correct_if(False, f"{extraction.rule}/text")
        wanted = _as_share(gold)
        return correct_if(
            abs(_as_share(given) - wanted) <= self._TOLERANCE * abs(wanted), f"{extraction.rule}/tolerance"
        )


class ContainsVerifier(ExtractingVerifier):
    """OCRBench's rule: the reference stands somewhere in the text after the thinking.

    Case is ignored and line breaks are spaces; with `formula=true`, its rule for HME100k, case counts and white space
    does not. As in Yuliang-Liu/MultimodalOCR, OCRBench/example.py. Full-width forms are folded, as in
    EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/ocrbench/utils.py.
    """

    def __init__(self, *, formula: bool = False) -> None:
        self._formula = formula

    def extract(self, response: str) -> Extraction:
        """All of the text after the thinking."""
        return whole_text(response)

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        if not self._fold(reference):
            return bad_reference("is empty")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        return correct_if(self._fold(reference) in self._fold(extraction.answer), "contains")

    def _fold(self, text: str) -> str:
        if self._formula:
            return "".join(text.split())
        return unicodedata.normalize("NFKC", text).lower().strip().replace("\n", " ")


class MathVistaVerifier(ExtractingVerifier):
    """MathVista's free-form answers: `kind=integer`, `kind=float` with `digits`, or `kind=list`.

    As in `normalize_extracted_answer` of lupantech/MathVista, evaluation/calculate_score.py: a number is cut to an
    integer, or rounded to `digits` decimals, and must then be the reference; lists must have the same elements.
    """

    lists_are_answers = True

    def __init__(self, *, kind: str, digits: int = 0) -> None:
        if kind not in ("integer", "float", "list"):
            raise ValueError(f"kind = {kind}: must be integer, float or list")
        if not 0 <= digits <= 9:
            raise ValueError(f"digits = {digits}: must be 0 to 9")
        self._kind, self._digits = kind, digits

    def extract(self, response: str) -> Extraction:
        """As elsewhere, without the closing words of a chat."""
        return extract_answer(_without_closing(response))

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        return self._list(extraction, reference) if self._kind == "list" else self._number(extraction, reference)

    def _number(self, extraction: Extraction, reference: str) -> Found:
        gold = read_number(reference)
        if gold is None:
            return bad_reference(f"{reference[:80]!r} is not a number")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        given = number_in(extraction)
        if isinstance(given, str):
            return no_answer(f"{extraction.rule}/{given}")
        shown = int(given.value) if self._kind == "integer" else round(given.value, self._digits)
        return correct_if(shown == gold.value, f"{extraction.rule}/{self._kind}")

    def _list(self, extraction: Extraction, reference: str) -> Found:
        gold = _last_list(reference)
        if gold is None:
            return bad_reference(f"{reference[:80]!r} is not a list")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        given = _last_list(extraction.answer)
        return no_answer(f"{extraction.rule}/none") if given is None else correct_if(given == gold, "list")


class MathVisionVerifier(MathVerifier):
    """MATH-Vision's free-form answers: what `math` accepts, and values that agree when rounded to two decimals.

    As in `is_equal` of mathllm/MATH-V, evaluation/utils.py.
    """

    def compare(self, answer: str, reference: str, *, rule: str = "box") -> Found:
        """Compare an extracted `answer` with `reference`."""
        found = super().compare(answer, reference, rule=rule)
        if found.kind is not VerdictKind.WRONG:
            return found
        gold, given = _value(reference), _value(answer)
        same = gold is not None and given is not None and round(gold, 2) == round(given, 2)
        return correct_if(True, "two-decimals") if same else found


def _without_closing(response: str) -> str:
    """`response` without the last lines that offer more help, such as "Is there anything else?"."""
    lines = response.rstrip().split("\n")
    while len(lines) > 1 and (not lines[-1].strip(" `") or _CLOSING.match(lines[-1])):
        lines.pop()
    return "\n".join(lines)


def _bare(text: str) -> str:
    """`text` as it is compared: without styles, quotes and a final stop, in lower case."""
    return unwrap(text).strip(_EDGE).lower()


def _as_share(found: Number) -> Fraction:
    return found.value / 100 if found.percent else found.value


def _last_list(text: str) -> list[object] | None:
    found = _LIST.findall(text[-_LONGEST:])
    try:
        return json.loads(found[-1].replace("'", '"')) if found else None
    except ValueError:
        return None


def _value(text: str) -> float | None:
    """The real number that a short formula without letters is, without its unit."""
    latex = split_unit(to_latex(text[:500])).text.rpartition("=")[2].strip()
    literal = parse_literal(latex)
    if literal is not None:
        return float(literal.value)
    try:
        value = value_of(parse_formula(latex))
        exact: Any = None if value is None else number(context(), value)
        return float(exact) if isinstance(exact, context().mpf) else None
    except (Unreadable, OverflowError, ValueError):
        return None
