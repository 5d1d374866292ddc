r"""Units and currency: split off a value, known ones with their exact sizes, so that 2 hours are 120 minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rewards.math.spoken import arc_degrees
from rewards.math.unit_sizes import UNITS, Dimensions, size_of

_CELSIUS = re.compile(r"\s?(?:\^\s?\\circ\s?(?:\\text\s?\{)?\s?|\\text\s?\{\s?\^\s?\\circ\s?|)([CF]|℃|℉)\s?\}?\s?$")
_DEGREE = re.compile(r"\s?(?:\^\s?\\circ|(?:\\text\s?\{\s?)?degrees?\b\s?\}?)\s?$")
_CURRENCY = re.compile(
    r"^([-+]?)\s?(?:\\text\s?\{\s?)?(\\\$|\$|\\?€|£|¥|\\pounds|\\euro|USD|US\$|EUR|GBP|RMB|Rs\.?)\s?\}?\s?(?=[\d.\\-])"
)
_CURRENCY_AFTER = re.compile(r"(?<=[\d}])\s?(\\\$|\$|€|£|¥)\s?$")
_PERCENT = re.compile(r"%|per ?cent|pct", re.IGNORECASE)
_TEXT = r"(?:\\text\s?\{(?:[^{}]|\{[^{}]*\})*\}|[A-Za-zµμΩ℃℉]+\.?|[\u4e00-\u9fff\u3040-\u30ff\uac00-\ud7af]{1,8})"
_ATOM = rf"{_TEXT}\s?(?:\^\s?(?:\{{\s?-?\d\s?\}}|-?\d))?"
_SUFFIX = re.compile(rf"\s?{_ATOM}(?:\s?(?:/|\\cdot|\*|\s)\s?{_ATOM})*\s?")
_BEFORE = re.compile(
    r"(?:(?<=[\d})\].!])|(?<=\\pi)|(?<=[a-z])(?=\s?\\text))\s?(?=[A-Za-zµμΩ℃℉\\\u4e00-\u9fff\u3040-\u30ff\uac00-\ud7af])"
)
_SQUARED = re.compile(r"^(?:square|sq|cubic|cu)\.?\s+|平方|立方")
_POWER = re.compile(r"\^\s?\{?\s?(-?\d)\s?\}?")
_CONNECTORS = {
    "or",
    "and",
    "not",
    "is",
    "nor",
    "but",
    "if",
    "to",
    "than",
    "wrong",
    "least",
    "most",
    "mod",
    "for",
    "when",
    "below",
    "above",
}
# Words that make another unit of the one behind them. Such a unit of no known size agrees with no known unit.
_OTHER_UNIT = re.compile(r"^(?:nautical|metric|short|long|imperial|troy|fluid|astronomical|light)\s(?=\S)")
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s?(?:\\text\s?\{\s?)?([A-Za-z\u4e00-\u9fff]{1,12})\.?\s?\}?")
_PART_JOINT = re.compile(r"\s?(?:,|(?:\\text\s?\{\s?)?and\b\s?\}?)?\s?")
_ANGLES = {(("angle", 1),), (("radian", 1),)}
# Words behind a number that change its value: they are no unit.
VALUE_WORDS = re.compile(
    r"(?<![A-Za-z])(?:dozens?|hundreds|thousands|millions|billions|gross|lakhs?|crores?|hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|sixths?|sevenths?"
    r"|eighths?|ninths?|tenths?|hundredths?|thousandths?|millionths?|squared|cubed|factorial|modulo|base|permille"
    r"|per mille?|ppm|ppb|bps|basis points?)(?![A-Za-z])|[‰π√!]|\\pi(?![a-z])|^\s?e\s?$"
    r"|^\s?(?:[百万亿打成折]|千(?![克米瓦卡帕]))",
    re.IGNORECASE,
)
_IRRATIONAL = re.compile(r"-?[\d./\s]{0,12}(?:\\pi|\\sqrt\s?\{\s?\d{1,9}\s?\}(?:\s?\\pi)?)")
_NO_UNIT = re.compile(r"[不非或错太至]|以上|以下|左右|可能")  # Chinese words behind a number that are no unit
_MATHS = {"sqrt", "sin", "cos", "tan", "log", "ln", "mod", "exp", "pi", "frac", "cot", "sec", "csc"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """What is left of an answer once its unit is off; `unit` is "" where none was written."""

    text: str
    unit: str


@lru_cache(maxsize=4096)
def split_unit(text: str) -> Measure:
    r"""Split a unit (`10\text{ cm}^2`, `5 apples`, `90^\circ`, `\$3`, `3 厘米`) off normalised LaTeX."""
    money = _CURRENCY.match(text)
    if money is not None and text.count("$") <= 1:
        return Measure(text=money[1] + text[money.end() :].lstrip(), unit=_currency(money[2]))
    after = _CURRENCY_AFTER.search(text)
    if after is not None and text.count("$") <= 1:
        return Measure(text=text[: after.start()], unit=_currency(after[1]))
    several = _several_units(text) if text[:1].isdigit() and len(text) < 80 else None
    if several is not None:
        return several
    arc = arc_degrees(text) if "circ" in text and len(text) < 60 else None
    if arc is not None:
        return Measure(text=arc, unit="deg")
    celsius = _CELSIUS.search(text)
    if (
        celsius is not None
        and ("circ" in celsius.group() or celsius[1] in "℃℉")
        and "circ" not in text[: celsius.start()]
    ):
        return Measure(text=text[: celsius.start()], unit=f"°{'C' if celsius[1] in 'C℃' else 'F'}")
    degree = _DEGREE.search(text)
    if degree is not None and not re.search(r"circ|sin|cos|tan|cot|sec|csc|,", text[: degree.start()]):
        return Measure(text=text[: degree.start()], unit="deg")
    if len(text) > 200 or _PERCENT.search(text) or not re.search(r"[^\d\s.,/]\s?(?:\^\s?\{?\s?-?\d\s?\}?)?$", text):
        return Measure(text=text, unit="")
    for place in _BEFORE.finditer(text):
        suffix = _SUFFIX.fullmatch(text, place.end())
        if suffix is not None:
            unit = _unit(text[place.end() :], text[: place.start()], gap=place.end() > place.start())
            if unit:
                return Measure(text=text[: place.start()].rstrip(), unit=unit)
    return Measure(text=text, unit="")


def units_agree(gold: str, answer: str) -> bool:
    """False only where both units are known and measure different things.

    A missing or free-text unit is not held against an answer. Degrees agree with radians: a formula can convert them.
    """
    a, b = size_of(gold), size_of(answer)
    if (a is None) != (b is None) and _OTHER_UNIT.match(answer if b is None else gold):
        return False
    return a is None or b is None or a[0] == b[0] or {a[0], b[0]} == _ANGLES


def values_differ(gold: str, answer: str) -> bool:
    """True where equal numbers are different values, whatever the conversion: degrees and radians."""
    a, b = size_of(gold), size_of(answer)
    return a is not None and b is not None and {a[0], b[0]} == _ANGLES


def conversion(gold: str, answer: str) -> Fraction:
    """What to multiply a value in the unit `answer` with to have it in the unit `gold`; 1 where one is not known."""
    a, b = size_of(gold), size_of(answer)
    return b[1] / a[1] if a is not None and b is not None and a[0] == b[0] else Fraction(1)


def _several_units(text: str) -> Measure | None:
    """`3 hours and 15 minutes` as 195 minutes: known units of one kind, the larger first; None for all else."""
    parts: list[tuple[Fraction, str, Fraction]] = []
    kinds: set[Dimensions] = set()
    at = 0
    while at < len(text):
        part = _PART.match(text, at)
        size = size_of(part[2]) if part is not None else None
        if part is None or size is None or (parts and size[1] >= parts[-1][2]):
            return None
        parts.append((Fraction(part[1]), part[2], size[1]))
        kinds.add(size[0])
        joint = _PART_JOINT.match(text, part.end())
        at = joint.end() if joint is not None else part.end()
    if len(parts) < 2 or len(kinds) != 1:
        return None
    total = sum((value * size for value, _, size in parts), Fraction(0)) / parts[-1][2]
    return Measure(text=f"{total.numerator}/{total.denominator}", unit=parts[-1][1])


def _currency(mark: str) -> str:
    return {"\\pounds": "£", "\\euro": "€", "USD": "$", "US$": "$", "EUR": "€", "GBP": "£", "RMB": "¥"}.get(
        mark, mark.lstrip("\\")
    )


def _unit(text: str, value: str, *, gap: bool) -> str:
    """The unit's one name, such as "cm^2" or "apples"; "" where the text may be mathematics or prose."""
    plain = re.sub(r"\\text\s?\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", text).strip()
    plain = plain[1:-1].strip() if plain[:1] == "(" and plain[-1:] == ")" else plain
    if size_of(plain) is None and (VALUE_WORDS.search(plain) or re.search(r"\d", _POWER.sub(" ", plain))):
        return ""
    squared = _SQUARED.search(plain)
    powers = _POWER.findall(plain)
    exponent = powers[0] if len(powers) == 1 and not re.search(r"[/*]|cdot", plain) else ""
    if squared is not None:
        exponent = "3" if squared.group()[0] in "c立" else "2"
        plain = _SQUARED.sub("", plain)
    words = re.sub(r"\\cdot|[/*.]", " ", _POWER.sub(" ", plain)).split()
    if not words or _NO_UNIT.search(plain) or _CONNECTORS & {word.casefold() for word in words} or _MATHS & set(words):
        return ""
    if "\\text" not in text and squared is None and plain.isascii() and not _stands_alone(words, value, gap):
        return ""
    if len(words) > 1 or (powers and not exponent):
        return " ".join(plain.split())
    name = words[0] if words[0] in UNITS else words[0].casefold()
    return _CANONICAL.get(name, name) + (f"^{exponent}" if exponent not in ("", "1") else "")


def _stands_alone(words: list[str], value: str, gap: bool) -> bool:
    """True where bare letters are a unit and no variables: known ones behind a number, and words."""
    if all(word in UNITS or word.casefold() in UNITS for word in words):
        short = any(len(word) <= 2 for word in words)
        return (
            not short
            or (value[-1:].isdigit() and re.search(r"[A-Za-z]", value) is None and (gap or len(words[0]) > 1))
            or (gap and len(words[0]) > 1 and _IRRATIONAL.fullmatch(value.strip()) is not None)
        )
    return gap and all(len(word) > 2 or word in UNITS for word in words)


_CANONICAL: dict[str, str] = {}
_FIRST: dict[tuple[Dimensions, Fraction], str] = {}
for _name in UNITS:
    if (_entry := size_of(_name)) is not None:
        _CANONICAL[_name] = _FIRST.setdefault(_entry, _name)
