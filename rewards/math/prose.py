"""The mathematical part of a sentence: its last formula, bold text or number, by fixed rules that pick one thing."""

from __future__ import annotations

import re

from rewards.math.literal import parse_literal, split_unit
from rewards.math.normalize import to_latex
from rewards.math.quantity import quantity_in, signed, withheld
from rewards.math.spoken import SCALE
from rewards.math.units import VALUE_WORDS
from rewards.sentences import stated

_NEGATED = re.compile(
    r"(?<![a-zA-Z\\])(?:not|never|cannot|wrong|incorrect|but|except"
    r"|(?:is|are|was|were|do|does|did|ca|could|wo|would|should)n't)(?![a-zA-Z])|\\neg(?![a-zA-Z])|不是|并非|不等于|不可能",
    re.I,
)
_EQUALS = re.compile(r"(?<![<>!:\\])=(?!=)")
_CODE = re.compile(r"[\[\]_]|'[^']{0,80}'\)?|\"[^\"]{0,80}\"|[A-Za-z]{2}\(")
_WORDS = re.compile(r"[A-Za-zÀ-ÿ]{2,}")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\s*\{[a-zA-Z]{1,12}\*?\}")
_SPAN = re.compile(
    r"\$\$([^$]{1,400})\$\$|(?<!\\)\$([^$]{1,400})(?<!\\)\$|\\\(((?:[^\\]|\\[^()]){1,400})\\\)|\\\[((?:[^\\]|\\[^\[\]]){1,400})\\\]"
)
_BOLD = re.compile(r"\*\*([^*\n]{1,200})\*\*")
_MONEY = re.compile(
    r"-?\s?(?:\\?\$|[€£¥])\s?\d[\d,]{0,20}(?:\.\d{1,20})?|(?<!\d)-?\d[\d,]{0,20}(?:\.\d{1,20})?\s?(?:\\?\$|[€£¥])"
)
_AFTER_IS = re.compile(r"\b(?:is|are|equals?)\s+(?:\w+\s+)?(\\?\$?-?\d[\d.,/]*)\W*$")
_SAID = re.compile(  # what stands before a number in words
    r"^|\b(?:so|thus|hence|therefore)\b[,:]?\s|\b(?:is|are|was|were|equals?|get|gets|obtain|find|have|gives?|makes?|takes?|lasts?|it['’]s|costs?|needs?|weighs?)\s|[:：]|等于|得到|结果[是为]|(?<![不非])[是为得有即]",
    re.IGNORECASE,
)
_CONDITION = re.compile(r",?\s(?:when|where|if|unless)\s", re.IGNORECASE)
_SCRIPTS = re.compile(r"[^\W\d_\x00-\u024f\u0370-\u03ff]")  # a letter that is neither Latin nor Greek
_WORD = re.compile(
    r"(?<![A-Za-z\\])(?!(?:sqrt|sin|cos|tan|cot|sec|csc|log|exp|arc|deg|pmatrix|bmatrix|cases)\b)[A-Za-zÀ-ÿ]{3,}"
)
_TUPLE = re.compile(r"(?:(?<![A-Za-z])[A-Z])?[(\[]\s*[-+]?[\d./∞]{1,20}(?:\s*[,，]\s*[-+]?[\d./∞]{1,20}){1,5}\s*[)\]]")
_INEQUALITY = re.compile(r"(?:-?[\d./]{1,20}\s?[<>≤≥]=?\s?)?(?<![A-Za-z\\])[a-z]\s?[<>≤≥]=?\s?-?[\d./]{1,20}")
_LISTED = re.compile(
    r"\b(?:are|is|=|:)\s+([^A-Za-z]{1,80}(?:(?:and|or)\s[^A-Za-z]{1,80}){1,6})\s*\.?\s*$"
    r"|(?:[是为有:：]|得到|等于)\s?((?:-?[\d./]{1,20}\s?[,，、]\s?){0,6}-?[\d./]{1,20}\s?[和与及]\s?-?[\d./]{1,20})\s*$"
)
_COMMAS = re.compile(r"(?:\b(?:are|is)\s|:)\s?((?:-?[\d./]{1,20}(?:,\s|、\s?)){1,10}-?[\d./]{1,20})\s?$")
_EQUATIONS = re.compile(r"(?<![A-Za-z])[A-Za-z]\s?=[^=]{1,40}(?:\band\b|\bor\b|,)\s?[A-Za-z]\s?=")
_AND = re.compile(r"\\text\s?\{\s?(and|or)\s?\}")
_UNIT_APART = re.compile(r"\$\s?([A-Za-z]{1,12})\s?\$\s?\^\s?\{?([23])\}?\s?\$")  # `$12$ cm$^2$`
_UNIT_SPAN = re.compile(r"\\(?:text|mathrm)\s?\{[^{}]{1,20}\}\s?(?:\^\s?\{?\d\}?)?")
_JOINING = re.compile(r"[\s,;$]*(?:and|or|,)?[\s,;$]*")


def from_prose(text: str, *, last: bool = True) -> str:
    """The mathematical part of a line of prose: its last formula, bold text, or number; `text` where it is one.

    "" where words beside that part deny or bound it, or offer another value.

    `last`: the answer is in the last sentence (a conclusion), not in the first (what follows "the answer is").
    """
    text = _UNIT_APART.sub(r" \\text{\1}^\2$", _AND.sub(r" \1 ", signed(text)))
    sentence = stated(text, last=last)
    if not last:
        sentence = _CONDITION.split(sentence, maxsplit=1)[0]
    bare = to_latex(sentence)
    if len(sentence) <= 200 and parse_literal(split_unit(bare).text) is not None:
        return sentence
    whole = text if last else sentence  # formulas and bold text count in all sentences of a conclusion
    spans = list(_SPAN.finditer(whole))
    if spans and not _between_amounts(whole, spans):
        return _from_spans(whole, spans)
    bold = _BOLD.findall(whole)
    if bold and re.search(r"\d", bold[-1]) and bold[-1].rstrip()[-1:] not in (":", "："):  # a heading is no answer
        return from_prose(bold[-1]) if len(bold[-1]) < len(whole) else bold[-1]
    return _from_sentence(sentence, bare, last=last)


def _from_sentence(sentence: str, bare: str, *, last: bool) -> str:
    """The list, point, amount or quantity of a sentence without formulas; all of it where there is none."""
    if not is_prose(bare) and not _WORD.search(_COMMAND.sub(" ", _ENVIRONMENT.sub(" ", bare))):
        return re.sub(r"^\s*(?:So|so|[Ii]t['’]s|[Ii]t is)\b,?|^\s*=", "", sentence)
    listed = _LISTED.search(f"is {sentence}") or _LISTED.search(f"是{sentence}") or _COMMAS.search(f": {sentence}")
    if listed is not None and re.search(r"\d", found := next(part for part in listed.groups() if part)):
        return found
    if _EQUATIONS.search(sentence):
        return sentence
    points = list(_TUPLE.finditer(sentence)) or list(_INEQUALITY.finditer(sentence))
    if len(points) == 1:
        return "" if withheld(sentence, *points[0].span()) else points[0].group()
    tail = _EQUALS.split(sentence)[-1] if _EQUALS.search(sentence) else sentence
    if negated(sentence) and re.search(r"\d", sentence):
        return ""
    if negated(sentence) or _CODE.search(tail.replace("\\[", "").replace("\\]", "")):
        return sentence
    said = max((match.end() for match in _SAID.finditer(tail)), default=0)
    words = tail[said:].strip(" *`")
    if not re.search(r"\d", words) and parse_literal(split_unit(to_latex(words)).text) is not None:
        return "" if withheld(tail, said, len(tail)) else words  # a number in words
    amounts = list(_MONEY.finditer(tail))
    if len(amounts) == 1 and not VALUE_WORDS.search(tail) and not SCALE.search(tail):
        return "" if withheld(tail, *amounts[0].span()) else amounts[0].group()
    found = quantity_in(tail, last=last)
    return sentence if found is None else found


def is_prose(latex: str) -> bool:
    """True for two words or more, or a script without Latin letters; names of functions do not count."""
    words = set(_WORDS.findall(_COMMAND.sub(" ", _ENVIRONMENT.sub(" ", latex))))
    words -= {"sqrt", "sin", "cos", "tan", "log", "pi"}
    return len(words) >= 2 or bool(_SCRIPTS.search(latex))


def negated(text: str) -> bool:
    """True where a word such as "not" or "wrong" stands in `text`."""
    return bool(_NEGATED.search(text))


def _from_spans(text: str, spans: list[re.Match[str]]) -> str:
    """The last formula, or a list of those at the end; "" where it is denied, bounded or one of several."""
    contents = [next(g for g in m.groups() if g is not None).strip().removeprefix("=") for m in spans]
    rest = _SPAN.sub("", text)
    several = len(spans) > 1 and not set(re.findall(r"\w+", rest.casefold())) - {"and", "or"}
    first = len(spans) - 1
    while first > 0 and _JOINING.fullmatch(text[spans[first - 1].end() : spans[first].start()]):
        first -= 1
    if withheld(text, spans[first].start(), spans[-1].end()):
        return ""
    if first < len(spans) - 1:
        unit = len(spans) - first == 2 and _UNIT_SPAN.fullmatch(contents[-1].strip())
        return (" " if unit else ", ").join(contents[first:])
    after = _AFTER_IS.search(text[text.rfind("$") + 1 :])
    if after is not None and not contents[-1].strip()[:1].isdigit():
        return after[1]
    if several:
        return text.replace("$", " ")
    return f"{contents[-1]}%" if re.match(r"\s*(?:\\?%|percent\b|pct\b)", rest.strip()) else contents[-1]


def _between_amounts(text: str, spans: list[re.Match[str]]) -> bool:
    """True where the dollar signs are money, as in `$10 + $5 = $15`: what lies between two of them is no formula."""
    return bool(re.search(r"[-+=]\s*$|[-+=]\s*\$$", spans[-1].group())) or (
        text.count("$") % 2 == 1 and "\\(" not in text
    )
