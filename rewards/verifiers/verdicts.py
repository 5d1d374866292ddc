"""What the verifiers of short answers share: from a finding to a verdict, and the answer text of a response."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from rewards.extraction import Extraction, extract_answer, split_thinking
from rewards.types import Verdict, VerdictKind

_FENCE = re.compile(r"```[ \t]{0,4}\w{0,20}[ \t]{0,4}\n(.*?)```", re.DOTALL)
_SHOWN = 500  # characters of the answer that a verdict keeps
_SEARCHED = 20_000  # characters that `whole_text` keeps: the last
_BODY = 100_000  # characters of the answer text that are looked at: the last


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The outcome of a comparison: its kind, the rule that decided, the score where it is not 1 for `correct`."""

    kind: VerdictKind
    rule: str
    detail: str = ""
    score: float | None = None

    def verdict(self, start: float, extracted: str | None) -> Verdict:
        """The verdict; `start` is what `time.perf_counter` said before the work."""
        score = float(self.kind is VerdictKind.CORRECT) if self.score is None else self.score
        return Verdict(
            kind=self.kind,
            score=score,
            extracted=extracted[:_SHOWN] if extracted is not None else None,
            rule=self.rule,
            seconds=time.perf_counter() - start,
            detail=self.detail,
        )


def correct_if(right: bool, rule: str) -> Found:
    """`correct` or `wrong`."""
    return Found(kind=VerdictKind.CORRECT if right else VerdictKind.WRONG, rule=rule)


def no_answer(rule: str, detail: str = "") -> Found:
    """Nothing was committed to."""
    return Found(kind=VerdictKind.NO_ANSWER, rule=rule, detail=detail)


def bad_reference(detail: str) -> Found:
    """The reference cannot be used."""
    return Found(kind=VerdictKind.BAD_REFERENCE, rule="reference", detail=detail)


def whole_text(response: str) -> Extraction:
    """All text after the thinking, for rules that search it: its last `_SEARCHED` characters."""
    thinking = split_thinking(response)
    text = thinking.answer_text[-_SEARCHED:].strip()
    if text:
        return Extraction(answer=text, rule="text")
    return Extraction(answer=None, rule="empty" if thinking.thought is None or thinking.closed else "open-thinking")


def long_answer(response: str) -> Extraction:
    """The answer where it may have many lines: the box, the tag, the last code fence, else all text after thinking."""
    found = extract_answer(response)
    body = split_thinking(response).answer_text[-_BODY:].strip()
    if found.rule == "empty" and body:  # signs alone, such as `[]` or `--`
        return Extraction(answer=body, rule="text")
    if found.answer is None or found.rule in ("box", "tag"):
        return found
    if found.rule == "anchor" and "\n" not in body:
        return found
    fences = _FENCE.findall(body)
    if fences:
        return Extraction(answer=fences[-1].strip(), rule="fence")
    return Extraction(answer=body, rule="text")
