"""Short free-text answers, as open questions about an image have: "yes", "teal", "a rectangle", "2"."""

from __future__ import annotations

import re
import time

from rewards.extraction import extract_answer, first_sentence
from rewards.normalize import plain
from rewards.types import Task, Verdict, VerdictKind

_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
_COPULA = re.compile(r"\b(?:is|are|was|were|it's|that's|shows?|says?|reads?)\b\s*:?\s*")
_HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|possibly)\b|/")
_NUMBERS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
    "twenty",
]
_DIGITS = {word: str(value) for value, word in enumerate(_NUMBERS)}
_MAX_ANSWER = 500  # characters


class TextVerifier:
    """Equality of words: no case, no article, no punctuation at the ends, number words as digits."""

    def __call__(self, response: str, reference: str, *, task: Task) -> Verdict:
        """Judge `response`. A hedge ("yes or no") is no answer unless the reference holds it too. Never raises."""
        start = time.perf_counter()
        gold = normalize_words(reference)
        extraction = extract_answer(response)
        kind, rule, answer = VerdictKind.WRONG, "words", extraction.answer
        if not gold:
            kind, rule = VerdictKind.BAD_REFERENCE, "reference"
        elif answer is None:
            kind, rule = VerdictKind.NO_ANSWER, extraction.rule
        elif len(answer) > max(_MAX_ANSWER, 2 * len(reference)):
            kind, rule = VerdictKind.NO_ANSWER, "refused"
        else:
            given = normalize_words(answer)
            if given == gold or (extraction.rule in ("anchor", "line") and _sentence_says(answer, gold)):
                kind = VerdictKind.CORRECT
            elif not given:
                kind, rule = VerdictKind.NO_ANSWER, "empty"
            elif _HEDGE.search(given) and not _HEDGE.search(gold):
                kind, rule = VerdictKind.NO_ANSWER, "hedge"
            rule = f"{extraction.rule}/{rule}"
        return Verdict(
            kind=kind,
            score=float(kind is VerdictKind.CORRECT),
            extracted=answer[:_MAX_ANSWER] if answer is not None else None,
            rule=rule,
            seconds=time.perf_counter() - start,
        )


def normalize_words(text: str) -> str:
    """`text` as it is compared: see `TextVerifier`."""
    words = _ARTICLE.sub("", plain(text))
    return " ".join(_DIGITS.get(word, word) for word in words.split())


def _sentence_says(answer: str, gold: str) -> bool:
    """True where the first sentence ends in "is <gold>", or starts "<yes or no>, ..."."""
    sentence = plain(first_sentence(answer))
    head = sentence.partition(",")[0]
    if gold in ("yes", "no"):
        return head == gold
    tail = _COPULA.split(sentence)[-1]
    return tail != sentence and normalize_words(tail) == gold
