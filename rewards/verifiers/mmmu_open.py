"""MMMU's rule for open questions: the reference stands in one of the response's key phrases, or is one of its numbers.

As in `parse_open_response` and `eval_open` of MMMU-Benchmark/MMMU, mmmu/utils/eval_utils.py. It measures a model as the
benchmark does. It is lax: do not train on it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from rewards.extraction import Extraction
from rewards.types import Task
from rewards.verifiers.base import ExtractingVerifier
from rewards.verifiers.verdicts import Found, bad_reference, correct_if, no_answer, whole_text

_PHRASES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
# VideoMMMU looks for more: EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/videommmu/utils.py.
_VIDEO_PHRASES = (
    *_PHRASES,
    *("are ", "in total ", "total ", "identify ", "recognize ", "calculated as ", "counted as ", "measured as "),
    *("observed as ", "concluded as ", "found to be ", "equals ", "determined to be ", "number of ", "value is "),
    *("adds up to ", "have ", "has "),
)
_MARKS = (":", ",", ".", "!", "?", ";", "'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3}){1,20}\b"),
    re.compile(r"-?\d{1,30}(?:\.\d{1,30})?[eE][+-]?\d{1,3}"),
    re.compile(r"-?(?:\d{1,30}\.\d{1,30}|\.\d{1,30}|\d{1,30}\b)(?![eE][+-]?\d)(?![,\d])"),
)


class MmmuOpenVerifier(ExtractingVerifier):
    """MMMU's open questions; numbers are compared at two decimals, texts by containment in lower case.

    `video=true` uses VideoMMMU's longer list of phrases in front of an answer.
    """

    def __init__(self, *, video: bool = False) -> None:
        self._phrases = _VIDEO_PHRASES if video else _PHRASES

    def extract(self, response: str) -> Extraction:
        """All of the text after the thinking."""
        return whole_text(response)

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        if not reference.strip():
            return bad_reference("is empty")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        gold = _normalized(reference)
        for given in self._candidates(extraction.answer):
            same = any(_says(given, wanted) for wanted in gold)
            if same:
                return correct_if(True, "number" if isinstance(given, float) else "phrase")
        return correct_if(False, "phrase")

    def _candidates(self, text: str) -> Iterator[str | float]:
        """The key phrases and their numbers, normalised."""
        for phrase in self._key_phrases(text):
            yield from _normalized(phrase)
            for pattern in _NUMBERS:
                for found in pattern.findall(phrase):
                    yield from _normalized(found)

    def _key_phrases(self, text: str) -> list[str]:
        """Of each line, the shortest text behind a phrase such as "is"; the whole text where no line has one."""
        # The official code also splits at ". " in front of a capital, but only after it has lowered the text.
        lines = text.strip().strip(".").lower().split("\n")
        found = []
        for at, line in enumerate(lines):
            phrases = (*self._phrases, "=") if at == len(lines) - 1 else self._phrases
            tails = [line.rpartition(phrase)[2].strip() for phrase in phrases if phrase in line]
            shortest = min(filter(None, tails), key=len, default="")
            if shortest and shortest not in _MARKS:
                found.append(shortest)
        return found or ["\n".join(lines)]


def _says(given: str | float, wanted: str | float) -> bool:
    """Whether a number is the wanted one, or a text holds it."""
    if isinstance(given, str):
        return isinstance(wanted, str) and wanted in given
    return given == wanted


def _normalized(text: str) -> list[str | float]:
    """A number at two decimals; else the text in lower case, a single character with a space at one of its sides."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
