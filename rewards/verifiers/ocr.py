"""Text read from an image, compared by edit distance: `ocr(threshold=0.9)`."""

from __future__ import annotations

import re
import unicodedata

from rapidfuzz.distance import Levenshtein

from rewards.extraction import Extraction, visible
from rewards.math.normalize import unwrap
from rewards.sentences import stated, without_remarks
from rewards.types import Task, VerdictKind
from rewards.verifiers.base import ExtractingVerifier
from rewards.verifiers.verdicts import Found, bad_reference, long_answer, no_answer

_LONGEST = 20_000  # characters of a reference
_WRAPPED = re.compile(r'"([^"]{1,20000})"|“([^”]{1,20000})”|「([^」]{1,20000})」|\\text\s?\{([^{}]{1,20000})\}')
_SAID = re.compile(  # The sign says "STOP".
    r"""[^"“'‘\n]{0,80}\b(?:says|reads|is)\s?:?\s?["“'‘]([^\n]{1,2000})["”'’]\s?\.?"""
)
_NEXT_SENTENCE = re.compile(r"\s?[.。][^\"“「]*$")


def unquoted(text: str) -> str:
    """`text` without markup, quotation marks or `\\text{}` around all of it; of `It says "STOP", as we see`, `STOP`."""
    text = unwrap(visible(text).strip().lstrip("#> "))
    found = _WRAPPED.fullmatch(text) or _SAID.fullmatch(text)
    if found is None:
        quoted = _WRAPPED.match(text)
        rest = text[quoted.end() :] if quoted is not None else ""
        remark = not without_remarks(rest).strip(" .。,，") or _NEXT_SENTENCE.match(rest) is not None
        found = quoted if remark else None
    return next(group for group in found.groups() if group is not None) if found is not None else text


class OcrVerifier(ExtractingVerifier):
    """Right where `1 - distance / longer length` (Levenshtein, in characters) is at least `threshold`.

    White space is collapsed and full-width forms are folded (NFKC); `case=false` ignores case. With `partial=true` the
    similarity is the score of a wrong answer too.
    """

    def __init__(self, *, threshold: float = 0.9, case: bool = True, partial: bool = False) -> None:
        if not 0.5 <= threshold <= 1:
            raise ValueError(f"threshold = {threshold}: must be between 0.5 and 1")
        self._threshold, self._case, self._partial = threshold, case, partial

    def extract(self, response: str) -> Extraction:
        """All lines of the answer."""
        return long_answer(response)

    def similarity(self, left: str, right: str) -> float:
        """In [0, 1]; 0 where it is below what `partial` or the threshold could use."""
        cutoff = 0.0 if self._partial else self._threshold
        return Levenshtein.normalized_similarity(self._fold(left), self._fold(right), score_cutoff=cutoff)

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the extracted answer with `reference`."""
        if not reference.strip() or len(reference) > _LONGEST:
            return bad_reference(f"must have 1 to {_LONGEST} characters, and has {len(reference)}")
        if extraction.answer is None:
            return no_answer(extraction.rule)
        if len(extraction.answer) > 2 * len(reference) + 1_000:
            return no_answer(f"{extraction.rule}/refused", "more than twice as long as the reference")
        candidates = [extraction.answer, unquoted(extraction.answer)]
        if extraction.rule == "anchor":
            candidates += [
                unquoted(without_remarks(extraction.answer)),
                unquoted(stated(extraction.answer, last=False)),
            ]
        similarity = max(self.similarity(reference, given) for given in candidates)
        right = similarity >= self._threshold
        score = similarity if self._partial else float(right)
        kind = VerdictKind.CORRECT if right else VerdictKind.WRONG
        return Found(kind=kind, rule=f"{extraction.rule}/edit-distance", detail=f"{similarity:.4f}", score=score)

    def _fold(self, text: str) -> str:
        text = " ".join(visible(unicodedata.normalize("NFKC", text)).split())
        return text if self._case else text.casefold()
