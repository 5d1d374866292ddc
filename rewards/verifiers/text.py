"""Short free-text answers, as open questions about an image have: "yes", "teal", "a rectangle", "2"; exact ones too."""

from __future__ import annotations

import re
import unicodedata

from rewards.extraction import Extraction, visible
from rewards.math.normalize import plain, unwrap
from rewards.sentences import first_sentence, last_sentence, stated, without_remarks
from rewards.types import Task
from rewards.verifiers.base import ExtractingVerifier
from rewards.verifiers.verdicts import Found, bad_reference, correct_if, no_answer
from rewards.verifiers.yesno import YesNoVerifier, judge_yes_no

_ARTICLE = re.compile(r"^(?:a|an|the)\s+")
_COPULA = re.compile(r"\b(?:is|are|was|were|it's|that's|shows?|says?|reads?)\b\s*:?\s*|(?<![不非能许])[是为]")
_HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|possibly)\b|/")
_NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
_DIGITS = {word: str(value) for value, word in enumerate(_NUMBERS.split())}
_EDGE = " \t\"'“”‘’「」『』《》【】。，！？.,!?"
_MAX_ANSWER = 500  # characters


class TextVerifier(ExtractingVerifier):
    """Equality of words: no case, no article, no punctuation at the ends, number words as digits."""

    rewritings = YesNoVerifier.rewritings
    cheats = YesNoVerifier.cheats

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the words. A hedge ("yes or no") is no answer unless the reference holds it too."""
        return _judge_words(response, extraction, reference)


class ExactVerifier(ExtractingVerifier):
    """Equality to the character, case and spaces included; only wrapping (`**x**`, `$x$`) and a final stop go."""

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        gold = unicodedata.normalize("NFC", reference).strip()
        if not gold:
            return bad_reference("is empty")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        if len(extraction.answer) > len(gold) + _MAX_ANSWER:
            return no_answer(f"{extraction.rule}/refused", "too long")
        given = unicodedata.normalize("NFC", extraction.answer).strip()
        same = gold in (given, given.removesuffix("."), unwrap(given)) or unwrap(gold) == unwrap(given)
        return correct_if(same, f"{extraction.rule}/exact")


def normalize_words(text: str) -> str:
    """`text` as it is compared: see `TextVerifier`."""
    words = _ARTICLE.sub("", plain(visible(text)).strip(_EDGE))
    return " ".join(_DIGITS.get(word, word) for word in words.split())


def _judge_words(response: str, extraction: Extraction, reference: str) -> Found:
    gold, answer = normalize_words(reference), extraction.answer
    if not gold:
        return bad_reference("has no letter or digit")
    if answer is None:
        return no_answer(extraction.rule)
    if len(answer) > max(_MAX_ANSWER, 2 * len(reference)):
        return no_answer(f"{extraction.rule}/refused", "too long")
    if gold in ("yes", "no"):
        return judge_yes_no(response, extraction, gold)
    if extraction.rule in ("anchor", "line"):
        answer = _claim(answer, last=extraction.rule == "line")
    given = normalize_words(unwrap(answer))
    if given == gold or (extraction.rule in ("anchor", "line") and _sentence_says(answer, gold)):
        return correct_if(True, f"{extraction.rule}/words")
    if not given:
        return no_answer(f"{extraction.rule}/empty")
    if _HEDGE.search(given) and not _HEDGE.search(gold):
        return no_answer(f"{extraction.rule}/hedge")
    return correct_if(False, f"{extraction.rule}/words")


def _claim(answer: str, *, last: bool) -> str:
    """What is said before any remark: all of a line, the first sentence of what follows "the answer is"."""
    return without_remarks(answer) if last else stated(answer, last=False)


def _sentence_says(answer: str, gold: str) -> bool:
    """True where the first sentence ends in "is <gold>", and the last one does not say something else."""
    last = plain(last_sentence(answer.strip()))
    said = _COPULA.split(last)
    if (
        len(said) > 1
        and _COPULA.split(plain(first_sentence(answer)))[0] == said[0]
        and normalize_words(said[-1]) != gold
    ):
        return False
    sentence = plain(first_sentence(answer))
    tail = _COPULA.split(sentence)[-1]
    return tail != sentence and normalize_words(tail) == gold
