"""The sentence that states an answer, without the remarks that people put around it. Strings in, strings out."""

from __future__ import annotations

import re
from functools import lru_cache

_SENTENCE_END = re.compile(r"(?:[.?]|(?<!\d)!)(?=\s|$)|[。！？]")  # `5!` is a factorial
_ANOTHER = re.compile(
    r"\W{0,3}(?:or|maybe|perhaps|possibly|alternatively|it (?:could|might|may)|或|也可能|也许)", re.IGNORECASE
)
_FOOTNOTE = re.compile(r"\[\^\w{1,4}\]")
_MARK = re.compile(r"[\u2705\u2713\u2714\u2611\U0001f300-\U0001faff]\ufe0f?")  # check marks
_ASIDE = re.compile(
    r"\s?[(（](?:see|from|as|since|because|option|eq|equation|step|not|which|by|using|shown|given|[如参]?见|由|因为|根据"
    r"|[而并]?不是|而非)(?![A-Za-z])[^()（）]{0,200}[)）]",
    re.IGNORECASE,
)
_REASON = re.compile(
    r",?\s(?:because|since|so that|as (?:required|claimed|desired|expected|shown|stated|needed|wanted|it|we|the))\b"
    r"|,\s(?:as|altogether|in total|in all|which|where)\b|[，,]?\s?(?:因为|由于)|[，,]\s?(?:这|符合|如图)",
    re.IGNORECASE,
)
_OTHERS = re.compile(  # what the answer is not, behind it: "5, not 6"; "5 rather than 6"
    r"(?<=[\w)}\]$°%*\"”])(?:,\s?(?:and |but )?not\s|(?<=[\d)}\]$°%])\s(?:and |but )?not\s"
    r"|,?\s(?:rather than|instead of)\s|[，,]?\s?(?:而不是|而非)|[，,]\s?(?:并)?(?:不是|并非)).{1,80}$",
    re.IGNORECASE,
)
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if chr(code) not in "！？，；"} | {0x2236: ":"}
_TAKEN_BACK = re.compile(
    r"^\W{0,3}(?:(?:oh|hmm+|but),?\s)?(?:wait|no[,.]|actually|correction|sorry|oops|scratch that|on second thought"
    r"|let me (?:re|double)|等等|不对|不，|更正|抱歉|重新)",
    re.IGNORECASE,
)


def first_sentence(text: str) -> str:
    """`text` up to the end of its first sentence; a dot inside a number does not end one.

    A sentence that offers another answer belongs to it: "5. Or 6."
    """
    end = _SENTENCE_END.search(text)
    return text[: end.start()] if end is not None and not _ANOTHER.match(text, end.end()) else text


def last_sentence(text: str) -> str:
    """The last sentence of `text` that is not empty."""
    return next((part for part in reversed(_SENTENCE_END.split(text)) if part.strip()), text)


def taken_back(text: str) -> bool:
    """True where the second sentence of `text` takes the first one back: "5. Wait, no, it is 6."."""
    end = _SENTENCE_END.search(text)
    return end is not None and _TAKEN_BACK.match(text[end.end() :].lstrip()) is not None


def is_question(text: str, *, last: bool) -> bool:
    """True where the sentence that would state the answer is a question: "Is it 5?"."""
    end = None if last else _SENTENCE_END.search(text)
    mark = end.group() if end is not None else text.rstrip(' *_`$"”).')[-1:]
    return mark in ("?", "？")


def without_remarks(text: str) -> str:
    """`text` up to a reason ("because", "，因为"), without asides, check marks and what the answer is not."""
    text = text if text.isascii() else _MARK.sub("", text)
    text = _FOOTNOTE.sub("", text) if "[^" in text else text
    text = _ASIDE.sub("", text) if "(" in text or "（" in text else text
    return _OTHERS.sub("", _REASON.split(text, maxsplit=1)[0]).rstrip()


@lru_cache(maxsize=16)  # a comparison needs it twice
def stated(text: str, *, last: bool) -> str:
    """The sentence that states the answer, without remarks: the last one of a conclusion, else the first one.

    The last one also where the second takes the first one back.
    """
    return without_remarks(last_sentence(text) if last or taken_back(text) else first_sentence(text))


def folded(text: str) -> str:
    """`text` with full-width digits, letters and signs as ASCII, but for Chinese punctuation between words."""
    return text if text.isascii() else text.translate(_FULL_WIDTH)
