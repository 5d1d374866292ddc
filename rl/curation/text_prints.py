"""Finds questions with the same words: n-grams of normalised words, as in GPT-3's decontamination (appendix C).

A question of 13 words or more overlaps with one that shares 13 words in a row, and a question of 8 to 12 words with
one that contains it whole. An n-gram of several questions is the wording of a template and proves nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from configs.prompt import IMAGE_MARK

N = 13
SHORTEST = 8  # words of the shortest question that is looked for inside others
TEMPLATE = 4  # so many questions that share an n-gram make it the wording of a template

_UNIT = re.compile(
    r"[぀-ヿ㐀-鿿가-힯]|[^\W_぀-ヿ㐀-鿿가-힯]+|[^\w\s.,;:!?'\"$\\{}。、…—·“”‘’《》]"
)  # a CJK character, a word, an operator

Gram = tuple[str, ...]


def units(text: str) -> Gram:
    """The words, numbers and operators of a text.

    Case, spaces, punctuation, full-width forms and the places of images do not count.
    """
    return tuple(_UNIT.findall(unicodedata.normalize("NFKC", text.replace(IMAGE_MARK, " ")).casefold()))


class TextIndex:
    """An index of named questions."""

    def __init__(self) -> None:
        self._whole: dict[Gram, str] = {}
        self._grams: dict[Gram, list[str]] = {}  # n-gram -> the first questions that have it
        self._lengths: set[int] = set()

    def add(self, question: str, name: str) -> None:
        """Add a question."""
        words = units(question)
        self._whole.setdefault(words, name)
        for gram in _own_grams(words):
            names = self._grams.setdefault(gram, [])
            if len(names) < TEMPLATE:
                names.append(name)
            self._lengths.add(len(gram))

    def equal(self, question: str) -> str | None:
        """The name of the first question with the same words, or None."""
        return self._whole.get(units(question))

    def overlapping(self, question: str) -> str | None:
        """The name of the first question that shares an n-gram with `question`, the wording of templates left out."""
        words = units(question)
        for n in sorted(self._lengths):
            for gram in _windows(words, n):
                names = self._grams.get(gram, [])
                if 0 < len(names) < TEMPLATE:
                    return names[0]
        return None


def _own_grams(words: Gram) -> Iterator[Gram]:
    """The n-grams by which a question is found."""
    if len(words) >= SHORTEST:
        yield from dict.fromkeys(_windows(words, min(N, len(words))))


def _windows(words: Sequence[str], n: int) -> Iterator[Gram]:
    for start in range(len(words) - n + 1):
        yield tuple(words[start : start + n])
