"""The mathematical part of a sentence: its last formula, bold text or number, by fixed rules that pick one thing only."""

from __future__ import annotations

import re

from rewards.extraction import first_sentence, last_sentence
from rewards.literal import parse_literal, split_unit
from rewards.normalize import to_latex

_NEGATED = re.compile(r"(?<![a-zA-Z\\])(?:not|isn't|wrong|incorrect|but|except)(?![a-zA-Z])|\\neg(?![a-zA-Z])", re.I)
_EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
_CODE = re.compile(r"[\[\]_]|'[^']*'\)?|\"[^\"]*\"|[A-Za-z]{2,}\(")
_WORDS = re.compile(r"[A-Za-zÀ-ÿ]{2,}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-zA-Z]{1,12}\*?\}")
_SPAN = re.compile(r"\$\$([^$]{1,400})\$\$|\$([^$]{1,400})\$|\\\(([^\\]{1,400}(?:\\[^)][^\\]{0,200}){0,60})\\\)|\\\[([^\\]{1,400}(?:\\[^\]][^\\]{0,200}){0,60})\\\]")
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_FORMULA = r"[-−]?\d{0,9}\s?\\[dt]?(?:frac\s?\{[^{}]{1,40}\}\s?\{[^{}]{1,40}\}|sqrt\s?\{[^{}]{1,40}\})"
_NUMBER = re.compile(
    rf"{_FORMULA}|(?<![\w.])[-−]?(?:\\?\$)?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)?(?:\.\d+|(?<=\d))(?:\s*/\s*\d+)?(?:\s?\\?%)?"
)
_MONEY = re.compile(r"(?:\\?\$|[€£¥])\s?(\d[\d,]*(?:\.\d+)?)|(\d[\d,]*(?:\.\d+)?)\s?(?:\\?\$|[€£¥])")
_REASON = re.compile(r",?\s+(?:because|since|so that)\s", re.IGNORECASE)
_AFTER_IS = re.compile(r"\b(?:is|are|equals?)\s+(?:\w+\s+)?(\\?\$?-?\d[\d.,/]*)\W*$")
_SCRIPTS = re.compile(r"[\u3040-\u9fff\uac00-\ud7af\u0400-\u04ff]")


def from_prose(text: str, *, last: bool = True) -> str:
    """The mathematical part of a line of prose: its last formula, bold text, or number; `text` where it is one.

    `last`: the answer is in the last sentence (a conclusion), not in the first (what follows "the answer is").
    """
    bare = to_latex(text)
    if len(text) <= 200 and parse_literal(split_unit(bare).text) is not None:
        return text
    spans = [next(g for g in m.groups() if g is not None) for m in _SPAN.finditer(text)]
    if spans and not _between_amounts(text, spans):
        return _from_spans(text, spans)
    bold = _BOLD.findall(text)
    if bold and re.search(r"\d", bold[-1]):
        return from_prose(bold[-1]) if len(bold[-1]) < len(text) else bold[-1]
    if not is_prose(bare):
        return text
    sentence = _REASON.split(last_sentence(text) if last else first_sentence(text), maxsplit=1)[0]
    tail = _EQUALS.split(sentence)[-1] if _EQUALS.search(sentence) else sentence
    if negated(sentence) or _CODE.search(tail.replace("\\[", "").replace("\\]", "")):
        return sentence
    amounts = [a or b for a, b in _MONEY.findall(tail)]
    numbers = [m.group().strip() for m in _NUMBER.finditer(tail) if re.search(r"\d", m.group())]
    if len(amounts) == 1:
        return amounts[0]
    return numbers[-1] if numbers else sentence


def is_prose(latex: str) -> bool:
    """True for two words or more, or a script without Latin letters; names of functions do not count."""
    words = set(_WORDS.findall(_COMMAND.sub(" ", _ENVIRONMENT.sub(" ", latex))))
    words -= {"sqrt", "sin", "cos", "tan", "log", "pi"}
    return len(words) >= 2 or bool(_SCRIPTS.search(latex))


def negated(text: str) -> bool:
    """True where a word such as "not" or "wrong" stands in `text`."""
    return bool(_NEGATED.search(text))


def _from_spans(text: str, spans: list[str]) -> str:
    rest = _SPAN.sub("", text)
    several = len(spans) > 1 and not set(re.findall(r"\w+", rest.casefold())) - {"and", "or"}
    after = _AFTER_IS.search(text[text.rfind("$") + 1 :])
    if after is not None and not spans[-1].strip()[:1].isdigit():
        return after[1]
    if several:
        return text.replace("$", " ")
    return f"{spans[-1]}%" if re.match(r"\s*(?:\\?%|percent\b|pct\b)", rest.strip()) else spans[-1]


def _between_amounts(text: str, spans: list[str]) -> bool:
    """True where the dollar signs are money, as in `$10 + $5 = $15`: what lies between two of them is no formula."""
    return bool(re.search(r"[-+=]\s*$", spans[-1])) or (text.count("$") % 2 == 1 and "\\(" not in text)
