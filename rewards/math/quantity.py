"""The quantity of a sentence: a number with all that belongs to it, such as `12 cm^2`, `2√3`, `7.8 billion` or `1:2`.

A part of a quantity is never returned: where something next to the number cannot be read, the whole run is, and the
comparison fails on it. Numbers of labels ("step 3", "figure 6") and in asides are no quantities.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.math.unit_sizes import UNITS

_TOKEN = re.compile(
    r"(?P<number>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)(?:\.\d+)?"
    r"|\d+(?:\.\d+)?|\.\d+)"
    r"|(?P<sign>\\?[$€£¥%]|[√∛π∞°‰+\-−–*/×÷·:=^_(){}\[\]!⁰¹²³⁴⁵⁶⁷⁸⁹′″'])"
    r"|(?P<command>\\[A-Za-z]+)|(?P<word>[A-Za-zµμΩ]+|[\u4e00-\u9fff]+)|(?P<space>\s+)|(?P<other>.)",
    re.DOTALL,
)
_IN_QUANTITY = {
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "dozens", "gross", "lakh", "crore", "squared",
    "cubed", "percent", "mod", "modulo", "root", "half", "halves", "thirds", "third", "quarter", "quarters", "degrees",
    "square", "cubic", "sq", "pm", "am", "sqrt", "pi", "ppm", "bps", "tenths", "hundredths", "thousandths", "factorial",
}  # fmt: skip
_SCALES = "十百千万萬亿億打成折"
_LABEL = re.compile(
    r"(?:fig(?:ure)?|step|eq(?:uation)?|option|choice|question|problem|page|table|part|case|line|section|chapter"
    r"|appendix|example|exercise|note|ref|图|表|步骤|步|题|选项|第)\.?\s*[(#]?$",
    re.IGNORECASE,
)
_BOUND = re.compile(  # what stands before a quantity that is a bound, denied, or the second of two sides
    r"\b(?:at (?:most|least)|(?:more|less|fewer|greater|smaller|larger) than|over|under|up to|below|above|nearly|unless"
    r"|not|never|cannot be|(?:is|are|was|were|do|does|did|ca|could|wo|would|should)n't(?: be)?"
    r"|\d{1,9}\s?[a-z]{0,3} by)\s*(?:it is\s*)?$"
    r"|(?:至少|最多|至多|超过|不到|大于|小于|并非|不是|不等于)(?:是|为|有|等于)?$",
    re.IGNORECASE,
)
_JOINED = re.compile(r"\s(?:and|plus)\s(?=\d|an? \w+|one \w+|\w+-?\w* (?:half|thirds?|quarters?))")
_CHANGED = re.compile(
    r"\s?(?:(?:over|base|to the power(?: of)?|plus|minus|times|of|divided by)\s+[\d$]|per ?mille?\b|in base\b)",
    re.IGNORECASE,
)
_AREA = re.compile(r"(?<=\d)([kcdm]?m[²³])$")  # `5m²` of a sentence is a quantity, not a formula
_MINUS = re.compile(r"(?<![A-Za-z])(?:minus|negative)\s+(?=[\d.$√])|负(?=\d)|零下(?=\d)", re.IGNORECASE)
_ASIDE = re.compile(
    r"\s?(?<!\\)[(（][^()（）]{0,200}(?:(?<![\\A-Za-z])[A-Za-z]{2}|[\u4e00-\u9fff]{2})[^()（）]{0,200}[)）]|\[\^\w{1,4}\]"
)


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a sentence that reads as one quantity."""

    start: int
    end: int
    text: str


def quantity_in(sentence: str, *, last: bool) -> str | None:
    """The last quantity of `sentence`, or the first; all of `sentence` where it is bounded or one of several."""
    sentence = signed(_ASIDE.sub("", sentence))
    found = [run for run in _runs(sentence) if not _LABEL.search(sentence[: run.start])]
    if not found:
        return None
    run = found[-1] if last else found[0]
    if _BOUND.search(sentence[: run.start].rstrip()) or _CHANGED.match(sentence[run.end :]):
        return sentence
    return _AREA.sub(r" \1", run.text)


def signed(text: str) -> str:
    """`minus 5`, `negative 5`, `−5`, `负5` and `零下5` as `-5`."""
    return _MINUS.sub("-", text.replace("−", "-"))


def _runs(sentence: str) -> list[Run]:
    runs: list[Run] = []
    parts: list[str] = []
    start = 0
    joins = {match.start() + 1: match.end() for match in _JOINED.finditer(sentence)}
    skip_to = 0
    for token in _TOKEN.finditer(sentence):
        if token.start() < skip_to:
            parts.append(token.group())
            continue
        kind, text = token.lastgroup, token.group()
        if token.start() in joins and any(re.search(r"\d", part) for part in parts):
            skip_to = joins[token.start()]
            parts.append(text)
            continue
        if text == "=":
            _close(runs, parts, start)
            parts = []
            continue
        if (
            kind in ("number", "sign", "command")
            or (kind == "space" and parts)
            or _belongs(kind, text, sentence, token)
        ):
            if not parts:
                start = token.start()
            if kind == "word" and "\u4e00" <= text[0] <= "\u9fff":
                unit = _chinese_unit(text)
                parts.append(unit)
                if unit != text:
                    _close(runs, parts, start)
                    parts = []
                continue
            parts.append(text)
            continue
        _close(runs, parts, start)
        parts = []
    _close(runs, parts, start)
    return runs


def _belongs(kind: str | None, text: str, sentence: str, token: re.Match[str]) -> bool:
    """True for a unit, a word of numbers, and a letter of a formula."""
    if kind != "word":
        return False
    before, after = sentence[: token.start()], sentence[token.end() :]
    behind_number = bool(re.search(r"(?:[\d)}%°π√²³/·*^]|\d\s|[/·*]\s|\w\s)$", before)) and bool(
        re.search(r"\d|π|√", before)
    )
    if "\u4e00" <= text[0] <= "\u9fff":
        return bool(re.search(r"\d\s?$", before)) and bool(_chinese_unit(text))
    if text.casefold() in _IN_QUANTITY:
        return behind_number
    if text in UNITS or text.casefold() in UNITS:
        short = len(text) <= 2 and text.isalpha() and text.casefold() in {"a", "in", "as", "at", "au", "ha"}
        return behind_number and not (short and not re.search(r"\d\s?$", before))
    return len(text) <= 2 and bool(re.match(r"\s?[\^_+*/(²³]", after) or re.search(r"[\d\^_+\-*/)]$", before))


def _chinese_unit(text: str) -> str:
    """The scale and the unit that `text` begins with, "" for neither."""
    scale = re.match(f"[{_SCALES}]*", text)
    rest = text[scale.end() :] if scale is not None else text
    for end in range(min(4, len(rest)), 0, -1):
        if rest[:end] in UNITS:
            return text[: len(text) - len(rest) + end]
    return text[: len(text) - len(rest)]


def _close(runs: list[Run], parts: list[str], start: int) -> None:
    text = "".join(parts)
    end = start + len(text)
    if not re.search(r"\d|[π∞]", text):
        return
    left = text.lstrip(" \t+*/×÷·:=)]}_^'")
    text = left.rstrip(" \t+*/×÷·:=([{_^'-−–")
    for opening, closing in ("()", "[]", "{}"):
        if text.count(opening) != text.count(closing):
            text = text.strip(opening + closing + " ") if text.count(opening) + text.count(closing) == 1 else text
    text = re.sub(r"^([-−–])\s+", r"\1", text)
    if re.search(r"\d|[π∞]", text):
        runs.append(Run(start=start, end=end, text=text))
