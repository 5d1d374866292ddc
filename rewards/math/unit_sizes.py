"""Sizes of units: what a unit measures, and how many base units it is. `5 g/cm^3` is 5000 kg/m^3.

Sizes are exact fractions. A unit that is not in the table has no size, and is never held against an answer.
"""

from __future__ import annotations

import re
from collections import Counter
from fractions import Fraction
from functools import lru_cache

Dimensions = tuple[tuple[str, int], ...]  # base dimension and exponent, in alphabetical order

# dimension: names and size; names and size; ...
_TABLE = {
    "length": "m meter meters metre metres 1; inch inches in 127/5000; ft foot feet 381/1250; yd yard yards 1143/1250;"
    " mi mile miles 201168/125; km kilometer kilometers kilometre kilometres 1000; dm decimeter decimeters 1/10;"
    " cm centimeter centimeters centimetre centimetres 1/100; mm millimeter millimeters millimetres 1/1000;"
    " micron microns micrometer micrometers 1/1000000; nanometer nanometers 1/1000000000;"
    " light-year light-years lightyear lightyears ly 9460730472580800; au AU 149597870700;"
    " 米 1; 厘米 公分 1/100; 毫米 1/1000; 千米 公里 1000; 分米 1/10; 微米 1/1000000; 纳米 1/1000000000;"
    " 里 500; 丈 10/3; 尺 1/3; 寸 1/30; 英里 201168/125; 英尺 381/1250; 英寸 吋 127/5000",
    "mass": "g gram grams 1/1000; kg kilogram kilograms 1; mg milligram milligrams 1/1000000; tonne tonnes 1000;"
    " lb lbs pound pounds 45359237/100000000; oz ounce ounces 45359237/1600000000; stone 45359237/7142857;"
    " 千克 公斤 1; 克 1/1000; 毫克 1/1000000; 吨 1000; 斤 1/2; 两 1/20",
    "time": "s sec secs second seconds 1; min mins minute minutes 60; h hr hrs hour hours 3600; day days 86400;"
    " ms millisecond milliseconds 1/1000; week weeks 604800; 秒 1; 分钟 60; 小时 时 3600; 天 日 86400; 周 星期 604800",
    "months": "month months 1; year years yr yrs 12; decade decades 120; century centuries 1200; 个月 1; 年 12",
    "length^2": "acre acres 316160658/78125; hectare hectares ha 10000; 公顷 10000; 亩 2000/3;"
    " 平方米 1; 平方厘米 1/10000; 平方千米 平方公里 1000000; 平方分米 1/100",
    "length^3": "L l liter liters litre litres 1/1000; mL ml milliliter milliliters 1/1000000; 升 1/1000;"
    " 毫升 1/1000000; gal gallon gallons 473176473/125000000000; quart quarts 473176473/500000000000;"
    " pint pints 473176473/1000000000000; 立方米 1; 立方厘米 1/1000000; 立方分米 1/1000",
    "length time^-1": "mph 1397/3125; knot knots kn 463/900; kph kmh 5/18",
    "money": "$ dollar dollars USD 美元 美金 1; cent cents ¢ 美分 1/100",
    "euro": "€ euro euros EUR 欧元 1",
    "pound": "£ GBP 英镑 1",
    "yuan": "¥ yuan RMB CNY 元 块 人民币 1; 角 毛 1/10; 分 1/100",
    "yen": "JPY yen 日元 1",
    "angle": "deg degree degrees 度 1; arcmin 1/60; arcsec 1/3600",
    "radian": "rad radian radians 弧度 1",
    "°C": "°C 摄氏度 1",
    "°F": "°F 华氏度 1",
    "kelvin": "K kelvin kelvins 1",
    "length mass time^-2": "N newton newtons 牛 牛顿 1; lbf 8896443230521/2000000000000; dyn dyne dynes 1/100000",
    "length^2 mass time^-2": "J joule joules 焦 焦耳 1; cal calorie calories 523/125; kcal 4184;"
    " eV 1602176634/10000000000000000000000000000; Wh 3600; erg ergs 1/10000000; 千瓦时 3600000",
    "length^2 mass time^-3": "W watt watts 瓦 瓦特 1; hp horsepower 37284993579113511/50000000000000; 千瓦 1000",
    "length^-1 mass time^-2": "Pa pascal pascals 帕 1; bar bars 100000; atm 101325; mmHg torr 101325/760;"
    " psi 8896443230521/1290320000",
    "current": "A amp amps ampere amperes 安 安培 1",
    "current^-1 length^2 mass time^-3": "V volt volts 伏 伏特 1",
    "current^-2 length^2 mass time^-3": "Ω ohm ohms Ohm 欧 欧姆 1",
    "current time": "C coulomb coulombs 库仑 1",
    "current^2 length^-2 mass^-1 time^4": "F farad farads 法拉 1",
    "current^-1 mass time^-2": "T tesla teslas 1; G gauss 1/10000",
    "current^-2 length^2 mass time^-2": "H henry henries 1",
    "time^-1": "Hz hertz 赫兹 1",
    "turns time^-1": "rpm RPM 1/60; rps 1",
    "amount": "mol mole moles 摩尔 1",
    "data": "B byte bytes 1; bit bits 1/8",
    "decibel": "dB decibel decibels 1",
}
_PREFIXES = {"n": -9, "μ": -6, "µ": -6, "u": -6, "m": -3, "c": -2, "k": 3, "M": 6, "G": 9, "T": 12, "p": -12}
_PREFIXED = (
    "m",
    "g",
    "s",
    "A",
    "V",
    "W",
    "J",
    "N",
    "Pa",
    "Hz",
    "Ω",
    "F",
    "T",
    "H",
    "L",
    "l",
    "mol",
    "B",
    "eV",
    "Wh",
    "bar",
)
_ATOM = re.compile(r"([^\s\d^/*·{}\\]+)\s?(?:\^\s?\{?\s?(-?\d)\s?\}?|([²³]))?")
_DIVIDED = re.compile(r"\s?/\s?|\s(?:per)\s")
_LIGHT_YEAR = re.compile(r"light[ -]years?")
_EXPONENTS = {"²": 2, "³": 3}


def _dimensions(counts: Counter[str]) -> Dimensions:
    return tuple(sorted((name, power) for name, power in counts.items() if power))


def _counts(text: str) -> Counter[str]:
    """`length^2 time^-1` as a counter of exponents."""
    found: Counter[str] = Counter()
    for part in text.split():
        name, _, power = part.partition("^")
        found[name] += int(power or 1)
    return found


UNITS: dict[str, tuple[Counter[str], Fraction]] = {}
for _text, _rows in _TABLE.items():
    for _row in _rows.split(";"):
        *_names, _factor = _row.split()
        UNITS |= dict.fromkeys(_names, (_counts(_text), Fraction(_factor)))
for _base in _PREFIXED:
    _what, _one = UNITS[_base]
    for _prefix, _power in _PREFIXES.items():
        UNITS.setdefault(_prefix + _base, (_what, _one * Fraction(10) ** _power))


@lru_cache(maxsize=4096)
def size_of(unit: str) -> tuple[Dimensions, Fraction] | None:
    r"""What `unit` (`cm^2`, `kg/m^3`, `m \cdot s^{-1}`) measures, and its size in base units; None where unknown."""
    if not unit or len(unit) > 60:
        return None
    unit = _LIGHT_YEAR.sub("ly", unit)
    total: Counter[str] = Counter()
    size = Fraction(1)
    for place, part in enumerate(_DIVIDED.split(unit.replace("\\cdot", " ").replace("*", " ").replace("·", " "))):
        atoms = list(_ATOM.finditer(part))
        if not atoms or _ATOM.sub("", part).strip(" .{}"):
            return None
        for atom in atoms:
            name = atom[1].rstrip(".")
            found = UNITS.get(name) or (UNITS.get(name.casefold()) if len(name) > 2 else None)
            if found is None:
                return None
            power = int(atom[2]) if atom[2] else _EXPONENTS.get(atom[3] or "", 1)
            power = -power if place else power
            for dimension, exponent in found[0].items():
                total[dimension] += exponent * power
            size *= found[1] ** power
    return _dimensions(total), size
