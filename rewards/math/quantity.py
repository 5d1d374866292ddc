"""The quantity of a sentence: a number with all that belongs to it, such as `12 cm^2`, `2√3`, `7.8 billion` or `1:2`.

A part of a quantity is never returned: where something next to the number cannot be read, the whole run is, and the
comparison fails on it. Numbers of labels ("step 3", "figure 6") and in asides are no quantities.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rewards.math.unit_sizes import UNITS
from rewards.sentences import folded

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
    r"(?:\b(?:at (?:most|least)|no (?:more|less|fewer) than|(?:more|less|fewer|greater|smaller|larger|other) than|over"
    r"|under|up to|below|above|nearly|unless|between|neither|nor|anything but|not necessarily|not|never|cannot be"
    r"|(?:could|may|might)(?: also)? be|(?:is|are|was|were|do|does|did|ca|could|wo|would|should)n't(?: be)?"
    r"|\d{1,9}\s?[a-z]{0,3} by)\s*(?:it is\s*)?|[<>≤≥≠]"
    r"|(?:至少|至多|最多|最少|不?超过|不到|不?大于|不?小于|不?少于|不?多于|不?低于|不?高于|介于|[并绝]非|不是|不等于"
    r"|不可能是|可能是?|也许是?|未必是?)(?:是|为|有|等于|共){0,2}\s?)[\s$(\\\[\"“]{0,4}$",
    re.IGNORECASE,
)
_ALTERNATIVE = re.compile(  # what stands behind one of several possible values, or before it
    r"[\s$)\]]{0,4}(?:[a-z]{2,12}\s){0,2}?,?\s?(?<![A-Za-z])(?:or\s|(?:to|through|versus|vs\.?)\s(?=[\d$(\\\[-]))"
    r"|[\s$)\]]{0,4}(?:[或到至和与](?!今)|还是|±|\\pm(?![a-z])|[-–—~]\s?[\d$])"
)
_DENIED_AFTER = re.compile(
    r"[\s$)\]*℃℉°%]{0,4}(?:[a-z]{1,12}\s){0,3}(?:is|are|was)\s(?:not|too|wrong|incorrect|false|impossible|excluded)\b"
    r"|[\s$)\]*℃℉°%]{0,4}[\u4e00-\u9fff]{0,4}?(?:不正确|不对|不可能|错误|是错|太大|太小|太多|太少|不符合)",
    re.IGNORECASE,
)
_ALTERNATIVELY = re.compile(
    r"\d[\w^$%°)\]]{0,12}(?:(?:\s[a-z]{1,20}){0,4},?\s(?:or|and|through|versus|vs\.?)\s|,\s"
    r"|\s?(?:[或到至和与及、]|还是)\s?)[$(\\\[]{0,4}$"
)
_JOINED = re.compile(r"\s(?:and|plus)\s(?=\d|an? \w+|one \w+|\w+-?\w* (?:half|thirds?|quarters?))|\sto\s(?=-?\d)")
_SCALING = (
    r"(?:in\s)?(?:hundred|thousand|million|billion|dozen|mod|negative|squared|cubed|[百千万亿])"  # "(in thousands)"
)
_CHANGED = re.compile(
    rf"[\s(（]{{0,4}}{_SCALING}[^()（）]{{0,30}}[)）]"
    r"|\s?(?:(?:over|base|to the power(?: of)?|plus|minus|times|of|divided by)\s+[\d$]|per ?mille?\b|in base\b)",
    re.IGNORECASE,
)
_LEFT = " \t+*/×÷·:=)]}_^'"  # what no quantity begins with
_AREA = re.compile(r"(?<=\d)([kcdm]?m[²³])$")  # `5m²` of a sentence is a quantity, not a formula
_NAME = re.compile(r"[A-Za-z]$")
_THIN = re.compile(r"(?<=\d)(?:\\,|\{,\})(?=\d{3}(?!\d))")
_DELIMITER = re.compile(r"\\[()\[\]]|\*\*")
_SPACING = re.compile(r"\\[,;: ]|(?<=\d)~(?=[\\A-Za-z])")
_TEXT = re.compile(r"\\(?:text|mathrm|mathbf)\s?\{([^{}]*)\}")
_BELOW_ZERO = re.compile(
    r"(?<![\d.-])(\d[\d.]{0,12}(?:\s?(?:°[CF]?|degrees?(?: Celsius| Fahrenheit)?))?) (?:below|under) zero\b"
)
_TO = re.compile(r"(?<=\d)\s?比\s?(?=\d)")
_BASE = re.compile(r"(?<![\w.])(\d[\dA-F]{0,30})\s?\(?(?:in )?base (\d{1,2})\)?")
_PER_CENT = re.compile(r"百分之(\d{1,9}(?:\.\d{1,9})?)(?!\d)")
_MINUS = re.compile(r"(?<![A-Za-z])(?:minus|negative)\s+(?=[\d.$√])|负(?=\d)|零下(?=\d)", re.IGNORECASE)
_ASIDE = re.compile(
    rf"\s?(?<!\\)[(（](?!{_SCALING})[^()（）]{{0,200}}(?:(?<![\\A-Za-z])[A-Za-z]{{2}}|[\u4e00-\u9fff]{{2}})"
    r"[^()（）]{0,200}[)）]|\[\^\w{1,4}\]"
)


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of a sentence that reads as one quantity."""

    start: int
    end: int
    text: str


def quantities(sentence: str) -> list[Run]:
    """The quantities of `sentence` in order, without numbers of labels ("step 3") and of names ("H2O")."""
    return [
        run
        for run in _runs(sentence)
        if not _LABEL.search(sentence[: run.start])
        and not (run.text[0].isdigit() and _NAME.search(sentence[: run.start]))
    ]


def quantity_in(sentence: str, *, last: bool) -> str | None:
    """The last quantity of `sentence`, or the first; "" where it is bounded or one of several, None without one."""
    sentence = signed(_ASIDE.sub("", sentence))
    found = quantities(sentence)
    if not found:
        return None
    run = found[-1] if last else found[0]
    if withheld(sentence, run.start, run.end) or _CHANGED.match(sentence[run.end :]):
        return ""
    return _AREA.sub(r" \1", run.text)


def unwrapped(sentence: str) -> str:
    """`sentence` with formulas as plain text: no dollar signs in pairs, no text commands."""
    if sentence.count("$") % 2 == 0:
        sentence = sentence.replace("$", "")
    return " ".join(_TEXT.sub(lambda m: f" {m[1]}", _SPACING.sub(" ", _DELIMITER.sub("", sentence))).split())


def withheld(sentence: str, start: int, end: int) -> bool:
    """True where the words beside `sentence[start:end]` make it a bound, deny it, or offer another value."""
    before = sentence[:start]
    return (
        _BOUND.search(before) is not None
        or _ALTERNATIVE.match(sentence, end) is not None
        or _DENIED_AFTER.match(sentence, end) is not None
        or _ALTERNATIVELY.search(before) is not None
    )


def signed(text: str) -> str:
    """`minus 5`, `−5`, `负5` as `-5`, `百分之5` as `5%`, `1{,}000` as `1000`; full-width signs as ASCII."""
    text = _BELOW_ZERO.sub(r"-\1", _TO.sub(":", text))
    text = _BASE.sub(r"\1_{\2}", text) if "base" in text else text
    return _PER_CENT.sub(r"\1%", _MINUS.sub("-", _THIN.sub("", folded(text.replace("−", "-")))))


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
    if not parts:
        return
    text = "".join(parts)
    end = start + len(text)
    start = end - len(text.lstrip(_LEFT))
    if not re.search(r"\d|[π∞]", text):
        return
    left = text.lstrip(_LEFT)
    text = left.rstrip(" \t*/×÷·:=([{_^'-−–")
    for opening, closing in ("()", "[]", "{}"):
        if text.count(opening) != text.count(closing):
            text = text.strip(opening + closing + " ") if text.count(opening) + text.count(closing) == 1 else text
    text = re.sub(r"^([-−–])\s+", r"\1", text)
    if re.search(r"\d|[π∞]", text):
        runs.append(Run(start=start, end=end, text=text))
