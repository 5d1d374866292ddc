"""Yes or no, in 18 languages. A response must say one of them and not the other; explanations may follow."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from rewards.extraction import Extraction, split_thinking
from rewards.sentences import stated, without_remarks
from rewards.types import Task
from rewards.verifiers.base import ExtractingVerifier
from rewards.verifiers.equivalent_answers import other_cases_of, yes_and_no
from rewards.verifiers.verdicts import Found, bad_reference, correct_if, no_answer

_YES = (
    "yes|yeah|yep|y|true|correct|sí|si|sim|oui|ja|да"
    "|是|是的|对|對|对的|正确|正確|有|はい|ええ|예|네|نعم|हाँ|हां|evet|tak|ano|có|ya|ναι"
)
_NO = (
    "no|nope|n|false|incorrect|não|nao|non|nein|nee|нет|否|不|不是|错|錯|错的|错误|錯誤|不对|不對|不正确|不正確|没有|沒有|いいえ|아니요|아니오|아니|لا|नहीं"
    "|hayır|hayir|nie|không|tidak|όχι"
)
_POLARITY: Mapping[str, bool] = {**dict.fromkeys(_YES.split("|"), True), **dict.fromkeys(_NO.split("|"), False)}
_CLAUSE = re.compile(r"[.,;:!?\n。，；：！？、—]|\s-\s|\b(?:or|and|but|wait|actually)\b|[/|]|或|和|还是")
_LEAD = re.compile(
    r"^(?:(?:so|then|therefore|thus|hence|well|i think|i would say|it is|it's|that is|this is|the answer is|answer"
    r"|the (?:statement|claim|sentence|caption|description|answer to the question) is"
    r"|final|definitely|certainly|clearly|absolutely|probably|most likely|simply)\s+)+"
)
_SAID = re.compile(r"^(?:这句话|这个说法|该说法|这种说法|答案|陈述)是")
_TAIL = re.compile(r"\s+(?:definitely|certainly|indeed|it is|it does|there is|there are|it isn't|there isn't|sir)$")
_EITHER = f"(?:{_YES}|{_NO})"
_UNSURE = re.compile(
    rf"\b(?:not|n't|isn't|never|neither|nor)\s+(?:a\s+)?(?:clear\s+)?{_EITHER}\b"
    rf"|\b{_EITHER}[\"'*.]?\s{{0,4}}(?:\bor\b|[/|]|或|还是)|(?:\bor\b|[/|]|或|还是)\s{{0,4}}[\"'*]?{_EITHER}\b"
)
_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|textbf|boxed)\s{0,4}\{")
_EDGE = " \t\"'`*_()[]{}$\\“”‘’「」【】<>#>"
_LONGEST = 500  # characters of an answer
_BODY = 2_000  # characters of a whole text that is looked through


class YesNoVerifier(ExtractingVerifier):
    """Reference and answer are a yes or a no (also true/false) in any of the languages, the same or two."""

    @staticmethod
    def rewritings(task: Task) -> dict[str, str]:
        """In other cases, and as LaTeX text."""
        return other_cases_of(task.answer.strip())

    @staticmethod
    def cheats(task: Task) -> dict[str, str]:
        """Yes and no at once."""
        return yes_and_no()

    def judge(self, extraction: Extraction, reference: str, *, response: str, task: Task) -> Found:
        """Compare the polarities. "Yes and no", "not yes" and anything else are no answer."""
        return judge_yes_no(response, extraction, reference)


def judge_yes_no(response: str, extraction: Extraction, reference: str) -> Found:
    """The finding on `response`, whose answer `extraction` is."""
    gold = read_polarity(reference)
    if gold is None:
        return bad_reference(f"{reference[:80]!r} is neither yes nor no")
    if extraction.answer is None:
        return no_answer(extraction.rule)
    if len(extraction.answer) > _LONGEST:
        return no_answer(f"{extraction.rule}/refused", f"longer than {_LONGEST} characters")
    found = _polarities(without_remarks(extraction.answer)) or _polarities(
        stated(extraction.answer, last=extraction.rule == "line")
    )
    if not found and extraction.rule == "line":  # "Yes.", and then a line that explains
        body = split_thinking(response).answer_text
        found = _polarities(body) if len(body) <= _BODY else set()
    if len(found) != 1:
        return no_answer(f"{extraction.rule}/{'hedge' if found else 'neither'}")
    return correct_if(found == {gold}, f"{extraction.rule}/yes-no")


def read_polarity(text: str) -> bool | None:
    """True for a text that says yes, False for no, None for neither or both."""
    found = _polarities(text) if len(text) <= _LONGEST else set()
    return next(iter(found)) if len(found) == 1 else None


def _polarities(text: str) -> set[bool]:
    """What the clauses of `text` say; both where one is negated or an alternative."""
    text = _COMMAND.sub(" ", unicodedata.normalize("NFKC", text)).casefold()
    if _UNSURE.search(text):
        return {True, False}
    found = set()
    for clause in _CLAUSE.split(text):
        words = " ".join(clause.strip(_EDGE).split())
        words = _SAID.sub("", words)
        words = _TAIL.sub("", _LEAD.sub("", f"{words} ").strip()).strip(_EDGE)
        polarity = _POLARITY.get(words)
        if polarity is not None:
            found.add(polarity)
    return found
