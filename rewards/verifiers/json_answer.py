"""JSON answers: `json(rel=0.01)`. The same keys, the same values; nothing is evaluated."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rewards.extraction import Extraction
from rewards.types import Task
from rewards.verifiers.base import ExtractingVerifier
from rewards.verifiers.geometry import matches
from rewards.verifiers.verdicts import Found, bad_reference, correct_if, long_answer, no_answer

_LONGEST = 50_000  # characters
_MAX_NODES = 5_000
_MAX_UNORDERED = (1_000, 200)  # values, and elements of one list, where the order does not matter
_MAX_EXPONENT = 400
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_Tolerance = tuple[Fraction, Fraction]


class NotJson(ValueError):
    """Text that is not one JSON value, or one that is too large to compare."""


class JsonVerifier(ExtractingVerifier):
    """Right where the response's JSON has the reference's keys and values.

    Key order and white space never matter; the order of lists does, unless `order=false`. Numbers are compared exactly,
    or within `abs` or `rel` times the reference's; `1` equals `1.0`, and neither equals `"1"` or `true`. Strings keep
    their case unless `case=false`. A key too many, twice or missing is wrong.
    """

    lists_are_answers = True

    def __init__(self, *, order: bool = True, case: bool = True, rel: float = 0.0, abs: float = 0.0) -> None:
        if not 0 <= rel < 1 or abs < 0:
            raise ValueError(f"rel = {rel}, abs = {abs}: rel must be in [0, 1), abs 0 or more")
        self._order, self._case = order, case
        self._tolerance = (Fraction(str(rel)), Fraction(str(abs)))

    @staticmethod
    def rewritings(task: Task) -> dict[str, str]:
        """In a code fence, and with its keys in another order."""
        try:
            read_json(task.answer)
            value = json.loads(task.answer)
        except (NotJson, ValueError):
            return {}
        cases = {"code fence": f"Here it is:\n```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"}
        if isinstance(value, dict):
            cases["other order of keys"] = json.dumps(dict(reversed(value.items())))
        return cases

    def extract(self, response: str) -> Extraction:
        """The box, the tag, the last code fence, or the only JSON value in the text."""
        return _json_in(long_answer(response))

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        try:
            gold = read_json(reference)
            if not self._order:
                _check_width(gold)
        except NotJson as error:
            return bad_reference(str(error))
        if extraction.answer is None:
            return no_answer(extraction.rule)
        try:
            given = read_json(extraction.answer)
        except NotJson as error:
            return no_answer(f"{extraction.rule}/not-json", str(error))
        return correct_if(self._equal(gold, given), f"{extraction.rule}/json")

    def _equal(self, gold: Any, given: Any) -> bool:
        if isinstance(gold, dict):
            same_keys = isinstance(given, dict) and gold.keys() == given.keys()
            return same_keys and all(self._equal(value, given[key]) for key, value in gold.items())
        if isinstance(gold, list):
            if not isinstance(given, list) or len(gold) != len(given):
                return False
            if self._order:
                return all(self._equal(a, b) for a, b in zip(gold, given, strict=True))
            return matches([[self._equal(a, b) for b in given] for a in gold]) == len(gold)
        if isinstance(gold, Fraction):
            rel, absolute = self._tolerance
            return isinstance(given, Fraction) and abs(gold - given) <= max(absolute, rel * abs(gold))
        if isinstance(gold, str):
            return isinstance(given, str) and self._fold(gold) == self._fold(given)
        return gold is given  # true, false, null

    def _fold(self, text: str) -> str:
        text = " ".join(unicodedata.normalize("NFC", text).split())
        return text if self._case else text.casefold()


def read_json(text: str) -> Any:
    """The one JSON value that `text` is, its numbers as exact fractions. Raises NotJson."""
    if len(text) > _LONGEST:
        raise NotJson(f"longer than {_LONGEST} characters")
    try:
        value = json.loads(
            text, parse_float=_number, parse_int=_number, parse_constant=_refuse, object_pairs_hook=_without_twins
        )
    except NotJson:
        raise
    except (ValueError, RecursionError) as error:
        raise NotJson(f"{type(error).__name__}: not one JSON value") from error
    if _count(value) > _MAX_NODES:
        raise NotJson(f"more than {_MAX_NODES} values")
    return value


def _json_in(extraction: Extraction) -> Extraction:
    """The one balanced `{...}` or `[...]` of a text around it; boxes, tags and fences stay as they are."""
    answer = extraction.answer
    if answer is None or extraction.rule in ("box", "tag", "fence") or len(answer) > 2 * _LONGEST or _is_json(answer):
        return extraction
    depth, start, found = 0, 0, dict[str, None]()
    for token in _TOKEN.finditer(answer):
        char = token.group()
        if char in "[{":
            start = token.start() if depth == 0 else start
            depth += 1
        elif char in "]}":
            depth = max(0, depth - 1)
            if depth == 0:
                found[answer[start : token.end()]] = None
    if len(found) > 1:
        return Extraction(answer=None, rule=f"{extraction.rule}/several")
    return Extraction(answer=next(iter(found), answer), rule=extraction.rule)


def _is_json(text: str) -> bool:
    try:
        read_json(text)
    except NotJson:
        return False
    return True


def _number(text: str) -> Fraction:
    if len(text) > _MAX_EXPONENT:
        raise NotJson(f"a number of more than {_MAX_EXPONENT} characters")
    value = Decimal(text)
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > _MAX_EXPONENT:
        raise NotJson(f"an exponent above {_MAX_EXPONENT}")
    return Fraction(value)


def _refuse(name: str) -> Any:
    raise NotJson(f"{name} is no JSON number")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotJson("a key is there twice")
    return found


def _check_width(gold: Any) -> None:
    """Raise NotJson where comparing lists in any order would take long."""
    values, elements = _MAX_UNORDERED
    todo = [gold]
    while todo:
        item = todo.pop()
        if isinstance(item, list) and len(item) > elements:
            raise NotJson(f"order=false takes lists of at most {elements} elements, and there are {len(item)}")
        todo.extend(item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
    if _count(gold) > values:
        raise NotJson(f"order=false takes at most {values} values")


def _count(value: Any) -> int:
    todo, seen = [value], 0
    while todo and seen <= _MAX_NODES:
        seen += 1
        item = todo.pop()
        inner: Iterable[Any] = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        todo.extend(inner)
    return seen
