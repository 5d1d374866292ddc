r"""Units and currency: split off a value, known ones with their exact sizes, so that 2 hours are 120 minutes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from rewards.math.spoken import arc_degrees

_TABLE = {
    "length": "m meter meters metre metres 1; km kilometer kilometers kilometre kilometres 1000;"
    " dm decimeter decimeters 1/10; cm centimeter centimeters centimetre centimetres 1/100;"
    " mm millimeter millimeters millimetres 1/1000;"
    " in inch inches 127/5000; ft foot feet 381/1250; yd yard yards 1143/1250; mi mile miles 201168/125;"
    " 米 1; 厘米 公分 1/100; 毫米 1/1000; 千米 公里 1000; 分米 1/10",
    "mass": "kg kilogram kilograms 1; g gram grams 1/1000; mg milligram milligrams 1/1000000; tonne tonnes 1000;"
    " 千克 公斤 1; 克 1/1000; 吨 1000",
    "time": "s sec secs second seconds 1; min mins minute minutes 60; h hr hrs hour hours 3600; day days 86400;"
    " week weeks 604800; 秒 1; 分钟 60; 小时 3600; 天 日 86400; 周 604800",
    "months": "month months 1; year years yr yrs 12; 个月 1; 年 12",
    "volume": "l L liter liters litre litres 1; ml mL milliliter milliliters 1/1000; 升 1; 毫升 1/1000",
    "money": "$ dollar dollars USD 1; cent cents ¢ 1/100",
    "euro": "€ euro euros EUR 1",
    "pound": "£ GBP 1",
    "yuan": "¥ yuan RMB CNY 元 1",
    "angle": "deg degree degrees 度 1",
    "radian": "rad radian radians 1",
    "°C": "°C 1",
    "°F": "°F 1",
    "force": "N newton newtons 1; kN 1000",
    "energy": "J joule joules 1; kJ 1000",
    "power": "W watt watts 1; kW 1000",
    "pressure": "Pa pascal pascals 1; kPa 1000",
    "voltage": "V volt volts 1",
    "frequency": "Hz hertz 1; kHz 1000",
}
_KNOWN: dict[str, tuple[str, Fraction]] = {}
for _kind, _rows in _TABLE.items():
    for _row in _rows.split(";"):
        *_names, _factor = _row.split()
        _KNOWN |= dict.fromkeys(_names, (_kind, Fraction(_factor)))

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
}
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
    """False only where both units are known and measure different things: a missing or free-text unit is not held
    against an answer."""
    a, b = _size(gold), _size(answer)
    return a is None or b is None or a[0] == b[0] or {a[0][0], b[0][0]} == {"angle", "radian"}


def conversion(gold: str, answer: str) -> Fraction:
    """What to multiply a value in the unit `answer` with to have it in the unit `gold`; 1 where one is not known."""
    a, b = _size(gold), _size(answer)
    return b[1] / a[1] if a is not None and b is not None and a[0] == b[0] else Fraction(1)


def _size(unit: str) -> tuple[tuple[str, int], Fraction] | None:
    name, _, power = unit.partition("^")
    if name not in _KNOWN:
        return None
    kind, size = _KNOWN[name]
    exponent = int(power or 1)
    return (kind, exponent), size**exponent


def _currency(mark: str) -> str:
    return {"\\pounds": "£", "\\euro": "€", "USD": "$", "US$": "$", "EUR": "€", "GBP": "£", "RMB": "¥"}.get(
        mark, mark.lstrip("\\")
    )


def _unit(text: str, value: str, *, gap: bool) -> str:
    """The unit's one name, such as "cm^2" or "apples"; "" where the text may be mathematics or prose."""
    plain = re.sub(r"\\text\s?\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 ", text).strip()
    squared = _SQUARED.search(plain)
    powers = _POWER.findall(plain)
    exponent = powers[0] if len(powers) == 1 and not re.search(r"[/*]|cdot", plain) else ""
    if squared is not None:
        exponent = "3" if squared.group()[0] in "c立" else "2"
        plain = _SQUARED.sub("", plain)
    words = re.sub(r"\\cdot|[/*.]", " ", _POWER.sub(" ", plain)).split()
    if not words or _CONNECTORS & {word.casefold() for word in words} or _MATHS & set(words):
        return ""
    if "\\text" not in text and squared is None and plain.isascii() and not _stands_alone(words, value, gap):
        return ""
    if len(words) > 1 or (powers and not exponent):
        return " ".join(plain.split())
    name = words[0] if words[0] in _KNOWN else words[0].casefold()
    return _CANONICAL.get(name, name) + (f"^{exponent}" if exponent not in ("", "1") else "")


def _stands_alone(words: list[str], value: str, gap: bool) -> bool:
    """True where bare letters are a unit and no variables: known ones behind a number, and words."""
    if all(word in _KNOWN or word.casefold() in _KNOWN for word in words):
        short = any(len(word) <= 2 for word in words)
        return not short or (
            value[-1:].isdigit() and re.search(r"[A-Za-z]", value) is None and (gap or len(words[0]) > 1)
        )
    return gap and all(len(word) > 2 or word in _KNOWN for word in words)


_CANONICAL: dict[str, str] = {}
_FIRST: dict[tuple[str, Fraction], str] = {}
for _name, _entry in _KNOWN.items():
    _CANONICAL[_name] = _FIRST.setdefault(_entry, _name)
