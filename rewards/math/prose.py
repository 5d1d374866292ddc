"""The mathematical part of a sentence: its last formula, bold text or number, by fixed rules that pick one thing."""

from __future__ import annotations

import re

from rewards.extraction import first_sentence, last_sentence
from rewards.math.literal import parse_literal, split_unit
from rewards.math.normalize import to_latex
from rewards.math.quantity import quantity_in, signed
from rewards.math.spoken import SCALE
from rewards.math.units import VALUE_WORDS

_NEGATED = re.compile(
    r"(?<![a-zA-Z\\])(?:not|never|cannot|wrong|incorrect|but|except"
    r"|(?:is|are|was|were|do|does|did|ca|could|wo|would|should)n't)(?![a-zA-Z])|\\neg(?![a-zA-Z])",
    re.I,
)
_EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
_CODE = re.compile(r"[\[\]_]|'[^']{0,80}'\)?|\"[^\"]{0,80}\"|[A-Za-z]{2}\(")
_WORDS = re.compile(r"[A-Za-zÀ-ÿ]{2,}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-zA-Z]{1,12}\*?\}")
_SPAN = re.compile(
    r"\$\$([^$]{1,400})\$\$|\$([^$]{1,400})\$|\\\(([^\\]{1,400}(?:\\[^)][^\\]{0,200}){0,60})\\\)|\\\[([^\\]{1,400}(?:\\[^\]][^\\]{0,200}){0,60})\\\]"
)
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_MONEY = re.compile(
    r"(?:\\?\$|[€£¥])\s?(\d[\d,]{0,20}(?:\.\d{1,20})?)|(?<!\d)(\d[\d,]{0,20}(?:\.\d{1,20})?)\s?(?:\\?\$|[€£¥])"
)
_REASON = re.compile(r",?\s(?:because|since|so that)\s", re.IGNORECASE)
_AFTER_IS = re.compile(r"\b(?:is|are|equals?)\s+(?:\w+\s+)?(\\?\$?-?\d[\d.,/]*)\W*$")
_SCRIPTS = re.compile(r"[^\W\d_\x00-\u024f\u0370-\u03ff]")  # a letter that is neither Latin nor Greek
_WORD = re.compile(
    r"(?<![A-Za-z\\])(?!(?:sqrt|sin|cos|tan|cot|sec|csc|log|exp|arc|deg|pmatrix|bmatrix|cases)\b)[A-Za-zÀ-ÿ]{3,}"
)
_TUPLE = re.compile(r"\(\s*-?[\d./]{1,20}(?:\s*,\s*-?[\d./]{1,20}){1,5}\s*\)")
_LISTED = re.compile(r"\b(?:are|is|=|:)\s+([^A-Za-z]{1,80}(?:(?:and|or)\s[^A-Za-z]{1,80}){1,6})\s*\.?\s*$")
_COMMAS = re.compile(r"(?:\b(?:are|is)\s|:)\s?((?:-?[\d./]{1,20},\s){1,10}-?[\d./]{1,20})\s?$")
_NOT_THAT = re.compile(r",?\s?(?:and |but )?not\s(?:-?\$?\d[\d.,/]{0,20})\s?\.?\s?$")
_EQUATIONS = re.compile(r"(?<![A-Za-z])[A-Za-z]\s?=[^=]{1,40}(?:\band\b|\bor\b|,)\s?[A-Za-z]\s?=")
_FOOTNOTE = re.compile(r"\[\^\w{1,4}\]|[\u2705\u2713\u2714\u2611\U0001f300-\U0001faff]\ufe0f?")
_ASIDE = re.compile(
    r"\s?[(（](?:see|from|as|since|because|option|eq|equation|step|in base)\b[^()（）]{0,200}[)）]", re.IGNORECASE
)
_CONDITION = re.compile(r",?\s(?:when|where|if|unless|as)\s", re.IGNORECASE)
_UNIT_SPAN = re.compile(r"\\(?:text|mathrm)\s?\{[^{}]{1,20}\}\s?(?:\^\s?\{?\d\}?)?")
_JOINING = re.compile(r"[\s,;$]*(?:and|or|,)?[\s,;$]*")


def from_prose(text: str, *, last: bool = True) -> str:
    """The mathematical part of a line of prose: its last formula, bold text, or number; `text` where it is one.

    `last`: the answer is in the last sentence (a conclusion), not in the first (what follows "the answer is").
    """
    text = signed(_FOOTNOTE.sub("", text))
    bare = to_latex(text)
    if len(text) <= 200 and parse_literal(split_unit(bare).text) is not None:
        return text
    if not last:
        text = _CONDITION.split(_REASON.split(_ASIDE.sub("", text), maxsplit=1)[0], maxsplit=1)[0]
        text = first if _SPAN.search(first := first_sentence(text)) else text
    spans = [next(g for g in m.groups() if g is not None) for m in _SPAN.finditer(text)]
    if spans and not _between_amounts(text, spans):
        return _from_spans(text, spans)
    bold = _BOLD.findall(text)
    if bold and re.search(r"\d", bold[-1]):
        return from_prose(bold[-1]) if len(bold[-1]) < len(text) else bold[-1]
    if not is_prose(bare) and not _WORD.search(_COMMAND.sub(" ", _ENVIRONMENT.sub(" ", bare))):
        return re.sub(r"^\s*(?:So|so|[Ii]t['’]s|[Ii]t is)\b,?|^\s*=", "", text)
    sentence = _REASON.split(last_sentence(text) if last else first_sentence(text), maxsplit=1)[0]
    sentence = _NOT_THAT.sub("", sentence)
    listed = _LISTED.search(sentence) or _COMMAS.search(sentence)
    if listed is not None and re.search(r"\d", listed[1]):
        return listed[1]
    if _EQUATIONS.search(sentence):
        return sentence
    points = _TUPLE.findall(sentence)
    if len(points) == 1:
        return points[0]
    tail = _EQUALS.split(sentence)[-1] if _EQUALS.search(sentence) else sentence
    if negated(sentence) or _CODE.search(tail.replace("\\[", "").replace("\\]", "")):
        return sentence
    amounts = [a or b for a, b in _MONEY.findall(tail)]
    if len(amounts) == 1 and not VALUE_WORDS.search(tail) and not SCALE.search(tail):
        return amounts[0]
    return quantity_in(tail, last=last) or sentence


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
    joined = _joined(text) if len(spans) > 1 else None
    if joined is not None:
        return joined
    after = _AFTER_IS.search(text[text.rfind("$") + 1 :])
    if after is not None and not spans[-1].strip()[:1].isdigit():
        return after[1]
    if several:
        return text.replace("$", " ")
    return f"{spans[-1]}%" if re.match(r"\s*(?:\\?%|percent\b|pct\b)", rest.strip()) else spans[-1]


def _joined(text: str) -> str | None:
    """The formulas at the end that only "and", "or" or a comma separates, as one list; None where there is one."""
    matches = list(_SPAN.finditer(text))
    first = len(matches) - 1
    while first > 0 and _JOINING.fullmatch(text[matches[first - 1].end() : matches[first].start()]):
        first -= 1
    spans = [next(g for g in m.groups() if g is not None) for m in matches[first:]]
    if len(spans) == 2 and _UNIT_SPAN.fullmatch(spans[1].strip()):
        return " ".join(spans)
    return ", ".join(spans) if len(spans) > 1 else None


def _between_amounts(text: str, spans: list[str]) -> bool:
    """True where the dollar signs are money, as in `$10 + $5 = $15`: what lies between two of them is no formula."""
    return bool(re.search(r"[-+=]\s*$", spans[-1])) or (text.count("$") % 2 == 1 and "\\(" not in text)
