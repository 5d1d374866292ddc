"""References with spellings that are right and texts that are another value, for `fuzz_verifiers.py`.

Each maker draws one reference from a random generator. A text with a backslash is LaTeX.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd

ENGLISH = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
]
CHINESE = "零一二三四五六七八九"
PLACES = ("", "十", "百", "千")
# unit: other units of the same kind with what to divide by, and units that make another answer
UNITS: dict[str, tuple[dict[str, float], tuple[str, ...]]] = {
    "cm": ({"mm": 0.1, "m": 100}, ("km", "kg", "cm^2", "inches")),
    "km": ({"m": 0.001}, ("cm", "h", "miles")),
    "kg": ({"g": 0.001}, ("mg", "lb", "m")),
    "m/s": ({"cm/s": 0.01}, ("km/h", "m/s^2", "m")),
    "km/h": ({}, ("m/s", "km", "mph")),
    "cm^2": ({"mm^2": 0.01}, ("cm", "m^2", "cm^3")),
    "m^3": ({"L": 0.001}, ("m^2", "cm^3")),
    "mL": ({"cm^3": 1, "L": 1000}, ("kL", "m^3")),
    "mA": ({"A": 1000}, ("kA", "V")),
    "MHz": ({"GHz": 1000, "kHz": 0.001}, ("Hz", "s")),
    "N": ({"kN": 1000}, ("J", "mN")),
    "kJ": ({"J": 0.001}, ("kW", "mJ")),
    "V": ({"mV": 0.001}, ("kV", "W")),
    "hours": ({"minutes": 1 / 60}, ("days", "seconds")),
    "minutes": ({"seconds": 1 / 60}, ("hours", "weeks")),
    "kg/m^3": ({"g/cm^3": 1000}, ("g/cm^2", "kg/m^2")),
}
CHINESE_UNITS: dict[str, tuple[dict[str, float], tuple[str, ...]]] = {
    "厘米": ({"毫米": 0.1, "米": 100, "cm": 1}, ("千米", "千克", "平方厘米")),
    "千克": ({"克": 0.001, "公斤": 1, "kg": 1, "斤": 0.5}, ("克", "吨")),
    "平方米": ({"m^2": 1}, ("米", "平方厘米", "立方米")),
    "小时": ({"分钟": 1 / 60}, ("天", "分钟")),
    "升": ({"毫升": 0.001, "L": 1}, ("毫升", "立方米")),
    "公里": ({"米": 0.001, "km": 1}, ("米", "里")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A reference, texts that are right, and texts that are wrong."""

    kind: str
    reference: str
    right: Sequence[str]
    wrong: Sequence[str]
    verifiers: tuple[str, ...] = ("math",)
    choices: tuple[str, ...] = ()


Maker = Callable[[random.Random], Answer]


def short(value: float) -> str:
    """A decimal without trailing zeros and without an exponent."""
    return f"{value:.8f}".rstrip("0").rstrip(".")


def chinese(n: int) -> str:
    """`n` below 10,000 as a Chinese numeral."""
    if n == 0:
        return "零"
    digits, text, skipped = str(n), "", False
    for at, digit in enumerate(digits):
        if digit == "0":
            skipped = True
            continue
        text += ("零" if skipped and text else "") + CHINESE[int(digit)] + PLACES[len(digits) - at - 1]
        skipped = False
    return text[1:] if text.startswith("一十") else text


def whole(rng: random.Random) -> Answer:
    """A whole number, of up to three digits."""
    n = rng.randint(2, 999)
    right = [f"{n}", f"{n}.0", f"{n}{rng.choice([' apples', ' units', ' people', ' square units'])}"]
    wrong = [f"{n + 1}", f"-{n}", f"{n}0", f"{n}.5", f"{n} dozen", f"{n} thousand", f"1/{n}", f"{n}!"]
    wrong += [rf"{n}\sqrt{{2}}", f"{n}π", f"{n}^2", f"{n} squared", f"{n}万", f"{n}/7", f"minus {n}", f"负{n}", f"{n}x"]
    return Answer(kind="whole", reference=str(n), right=right, wrong=wrong, verifiers=("math", "numeric"))


def decimal(rng: random.Random) -> Answer:
    """A decimal with one to three digits."""
    text = f"{rng.randint(0, 99)}.{rng.randint(1, 9)}{rng.choice(['', '5', '25'])}"
    digit = str((int(text[-1]) + 1) % 10 or 1)
    right = [text, f"{text}0", f"{text}00", *([text[1:]] if text.startswith("0.") else [])]
    wrong = [f"-{text}", f"{text}1", text[:-1] + digit, text.replace(".", "") + "0", f"{text} million"]
    return Answer(kind="decimal", reference=text, right=right, wrong=wrong, verifiers=("math", "numeric"))


def negative(rng: random.Random) -> Answer:
    """A negative whole number."""
    n = rng.randint(1, 400)
    right = [f"-{n}", f"−{n}", f"minus {n}", f"negative {n}", f"负{n}", f"$-{n}$"]
    return Answer(
        kind="negative", reference=f"-{n}", right=right, wrong=[f"{n}", f"-{n + 1}", f"-{n}0", f"minus {n + 2}"],
        verifiers=("math", "numeric"),
    )  # fmt: skip


def fraction(rng: random.Random) -> Answer:
    """A fraction in lowest terms."""
    top, bottom = rng.randint(1, 12), rng.randint(2, 15)
    while gcd(top, bottom) > 1:
        bottom += 1
    reference = rng.choice([f"{top}/{bottom}", rf"\frac{{{top}}}{{{bottom}}}"])
    right = [f"{top}/{bottom}", rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{{top}}}{{{bottom}}}",
        rf"\tfrac{top}{{{bottom}}}"
             if top < 10 else f"{top}/{bottom}", rf"\frac{{{3 * top}}}{{{3 * bottom}}}",
             f"{chinese(bottom)}分之{chinese(top)}"]  # fmt: skip
    if top > bottom > 1:
        right += [rf"{top // bottom}\frac{{{top % bottom}}}{{{bottom}}}", f"{top // bottom} {top % bottom}/{bottom}"]
    wrong = [f"{bottom}/{top}" if top != bottom else "7", f"-{top}/{bottom}", f"{top + 1}/{bottom}", str(top),
        str(bottom),
             rf"\frac{{{top}}}{{{bottom + 1}}}", rf"-\frac{{{top}}}{{{bottom}}}",
             rf"\frac{{{top}}}{{{bottom}}}\pi", f"{chinese(bottom + 1)}分之{chinese(top)}"]  # fmt: skip
    return Answer(kind="fraction", reference=reference, right=right, wrong=wrong)


def root(rng: random.Random) -> Answer:
    """A multiple of a square root."""
    m, k = rng.randint(2, 9), rng.choice((2, 3, 5, 6, 7, 10))
    right = [rf"{m}\sqrt{{{k}}}", rf"{m}\sqrt {k}" if k < 10 else rf"{m}\sqrt{{{k}}}", f"{m}√{k}",
        rf"\sqrt{{{m * m * k}}}",
             f"√{m * m * k}", rf"{m} \cdot \sqrt{{{k}}}", f"{m}√({k})", f"{m * k**0.5:.8f}"]  # fmt: skip
    wrong = [rf"{m}\sqrt{{{k + 1}}}", f"{m + 1}√{k}", str(m), str(k), f"√{k}", rf"{m}\sqrt[3]{{{k}}}", f"-{m}√{k}",
             f"{m}/√{k}", f"{m}+√{k}", f"{m * k**0.5:.2f}"]  # fmt: skip
    return Answer(kind="root", reference=rf"{m}\sqrt{{{k}}}", right=right, wrong=wrong)


def circle(rng: random.Random) -> Answer:
    """A multiple of π."""
    m = rng.randint(2, 99)
    right = [rf"{m}\pi", f"{m}π", rf"{m} \pi", rf"{m}\cdot\pi", f"{m} π", rf"{m}\pi \text{{ cm}}^2"]
    wrong = [str(m), rf"{m + 1}\pi", "π", rf"-{m}\pi", rf"{m}\pi^2", f"{m}+π", rf"\frac{{{m}}}{{\pi}}", f"{m}e"]
    return Answer(kind="pi", reference=rf"{m}\pi", right=right, wrong=wrong)


def scientific(rng: random.Random) -> Answer:
    """A number in scientific notation."""
    m, e = f"{rng.randint(1, 9)}.{rng.randint(1, 9)}", rng.choice((-19, -7, -3, 3, 5, 8, 23))
    right = [rf"{m} \times 10^{{{e}}}", f"{m} × 10^{e}", f"{m}e{e}", rf"{m}\cdot 10^{{{e}}}", f"{m}×10^{{{e}}}"]
    wrong = [
        m,
        rf"{m} \times 10^{{{-e}}}",
        f"{m} × 10^{e + 1}",
        f"-{m}e{e}",
        f"10^{e}",
        str(e),
        rf"{m}1 \times 10^{{{e}}}",
    ]
    return Answer(
        kind="scientific", reference=rf"{m} \times 10^{{{e}}}", right=right, wrong=wrong, verifiers=("math", "numeric")
    )


def power(rng: random.Random) -> Answer:
    """A power of a whole number."""
    base, e = rng.randint(2, 9), rng.randint(2, 7)
    right = [f"{base}^{e}", rf"{base}^{{{e}}}", str(base**e), f"{base**e:,}", f"{base}{'⁰¹²³⁴⁵⁶⁷⁸⁹'[e]}"]
    wrong = [
        f"{base}^{e + 1}",
        str(base),
        str(e),
        f"-{base}^{e}",
        f"{base}^{{-{e}}}",
        f"{base}{e}",
        str(base * e + base**e),
    ]
    return Answer(kind="power", reference=str(base**e), right=right, wrong=wrong)


def percentage(rng: random.Random) -> Answer:
    """A percentage."""
    n = rng.choice([rng.randint(2, 99), f"{rng.randint(2, 99)}.{rng.randint(1, 9)}"])
    right = [
        f"{n}%",
        rf"{n}\%",
        f"{n} %",
        f"{n} percent",
        f"{n} per cent",
        f"百分之{n}",
        short(float(n) / 100),
        f"{n}％",
        str(n),
    ]
    wrong = [f"1{n}%", f"-{n}%", f"{n}‰", f"{n} ppm", f"{n}° ", f"{n} percent of 7", f"{n} cm", f"{n}% to 99%"]
    return Answer(kind="percentage", reference=f"{n}%", right=right, wrong=wrong, verifiers=("math", "numeric"))


def large(rng: random.Random) -> Answer:
    """A number with thousands separators."""
    n = rng.randint(1_000, 9_999_999)
    right = [str(n), f"{n:,}", f"{n:,}".replace(",", " "), f"{n:,}".replace(",", "{,}"), f"{n:,}".replace(",", r"\,"),
             f"{n:,}".replace(",", "\u202f"), f"{n:,}.00"]  # fmt: skip
    wrong = [f"{n + 1:,}", f"{n}0", f"-{n:,}", str(n)[:-3], str(n)[-3:], f"{n:,} million", f"{n + 1000:,}"]
    return Answer(
        kind="large", reference=rng.choice([str(n), f"{n:,}"]), right=right, wrong=wrong, verifiers=("math", "numeric")
    )


def scale_word(rng: random.Random) -> Answer:
    """Millions, billions, 万 and 亿."""
    n = f"{rng.randint(1, 99)}{rng.choice(['', '.5', '.2'])}"
    word, zeros = rng.choice([("thousand", 3), ("million", 6), ("billion", 9), ("万", 4), ("亿", 8)])
    value = int(float(n) * 10 + 0.5) * 10 ** (zeros - 1)
    text = f"{n} {word}" if word.isascii() else n + word
    right = [text, str(value), f"{value:,}", f"${text}$" if word.isascii() else text]
    wrong = [f"{n} trillion", n, f"-{text}", f"{n}百", f"{n} hundred", str(value * 10), f"{n} dozen", f"{n}%"]
    return Answer(
        kind="scale", reference=rng.choice([text, str(value)]), right=right, wrong=wrong, verifiers=("math", "numeric")
    )


def measured(rng: random.Random) -> Answer:
    """A number with a unit."""
    table = rng.choice([UNITS, CHINESE_UNITS])
    unit = rng.choice(list(table))
    same, others = table[unit]
    n = rng.choice([rng.randint(2, 99), f"{rng.randint(1, 99)}.{rng.randint(1, 9)}"])
    gap = "" if table is CHINESE_UNITS else " "
    right = [f"{n}{gap}{unit}", f"{n} {unit}", str(n)]
    if table is UNITS:
        base, _, rest = unit.partition("^")
        right += [rf"{n}\text{{ {unit}}}" if not rest else rf"{n}\text{{ {base}}}^{rest[0]}{rest[1:]}",
                  rf"{n}\,\mathrm{{{unit}}}", rf"{n}~\text{{{unit}}}", f"{n} {unit}".replace("^2", "²").replace("^3",
                  "³")]  # fmt: skip
    for other, factor in same.items():
        value = float(n) / factor
        if abs(value - round(value, 6)) < 1e-9:
            right += [f"{short(value)} {other}"]
    wrong = [f"{n}{gap}{other}" for other in others]
    wrong += [f"{float(n) + 1:g}{gap}{unit}", f"-{n}{gap}{unit}", f"{n} thousand {unit}", f"{n}/7 {unit}"]
    return Answer(kind="unit", reference=f"{n}{gap}{unit}", right=right, wrong=wrong, verifiers=("math", "numeric"))


def duration(rng: random.Random) -> Answer:
    """Hours and minutes."""
    h, m = rng.randint(1, 9), rng.choice((5, 10, 12, 15, 20, 30, 36, 45))
    right = [f"{h} hours {m} minutes", f"{h} hours and {m} minutes", f"{h} h {m} min", f"{h * 60 + m} minutes",
        f"{h}小时{m}分钟",
             f"{h * 60 + m}分钟", rf"{h} \text{{ h }} {m} \text{{ min}}"]  # fmt: skip
    wrong = [f"{h} hours", f"{m} minutes", f"{h + 1} hours {m} minutes", f"{h} hours {m + 1} minutes", f"{h}:{m} pm",
             f"{h}小时", f"{m}分钟", str(m), f"{h} minutes {m} seconds"]  # fmt: skip
    reference = rng.choice([f"{h * 60 + m} minutes", f"{h} hours {m} minutes", f"{h}小时{m}分钟"])
    return Answer(kind="duration", reference=reference, right=right, wrong=wrong)


def clock(rng: random.Random) -> Answer:
    """A time of the day."""
    h, m, half = rng.randint(1, 11), rng.choice((0, 5, 15, 20, 30, 45)), rng.choice("ap")
    later = h + 12 * (half == "p")
    right = [f"{h}:{m:02} {half}.m.", f"{h}:{m:02} {half}m", f"{h}:{m:02} {half.upper()}M", f"{later}:{m:02}"]
    wrong = [
        f"{h}:{m:02} {'p' if half == 'a' else 'a'}m",
        f"{h}:{m + 1:02} {half}m",
        str(h),
        f"{h + 1}:{m:02}",
        f"{later + 1}:{m:02}",
    ]
    return Answer(kind="clock", reference=f"{h}:{m:02} {half}.m.", right=right, wrong=wrong)


def money(rng: random.Random) -> Answer:
    """An amount of money."""
    n, mark = (
        rng.choice([rng.randint(2, 999), f"{rng.randint(1, 99)}.50", f"{rng.randint(2, 99)},000"]),
        rng.choice("$€£"),
    )
    word = {"$": "dollars", "€": "euros", "£": "pounds"}[mark]
    latex = rf"\${n}" if mark == "$" else f"{mark}{n}"
    right = [f"{mark}{n}", latex, str(n), *([f"{n} {word}"] if mark != "£" else [])]
    other = "€" if mark == "$" else "$"
    wrong = [
        f"{mark}1{n}",
        f"{other}{n}",
        f"{mark}{n}k",
        f"{mark}{n} million",
        f"-{mark}{n}",
        f"{n}%",
        f"{n} kg",
        f"{mark}{n}M",
    ]
    return Answer(kind="money", reference=f"{mark}{n}", right=right, wrong=wrong, verifiers=("math", "numeric"))


def ratio(rng: random.Random) -> Answer:
    """A ratio in lowest terms."""
    a, b = rng.sample((2, 3, 5, 7, 11, 13), 2)
    right = [
        f"{a}:{b}",
        f"{2 * a}:{2 * b}",
        f"{a} : {b}",
        f"{a} to {b}",
        f"{a}：{b}",
        rf"\frac{{{a}}}{{{b}}}",
        f"{a}∶{b}",
        f"{a}比{b}",
        f"{chinese(a)}比{chinese(b)}",
    ]
    wrong = [f"{b}:{a}", str(a), str(b), f"{a}:{b + 1}", f"{a}:{b}:1", f"{a}1:{b}"]
    return Answer(kind="ratio", reference=f"{a}:{b}", right=right, wrong=wrong)


def numeral(rng: random.Random) -> Answer:
    """A whole number as a Chinese numeral or in English words."""
    n = rng.choice([rng.randint(2, 99), rng.randint(100, 9999), rng.randint(2, 15)])
    right = [chinese(n), f"{chinese(n)}个", f"{n}个", str(n)]
    wrong = [
        chinese(n + 1),
        f"{chinese(n)}万",
        f"{chinese(n)}点五",
        f"负{chinese(n)}",
        f"{chinese(n)}分之一",
        f"{chinese(n)}打",
        f"{n}千",
    ]
    wrong += [f"{chinese(n)}多个", f"{chinese(n)}或{chinese(n + 1)}", f"{chinese(n)}成", f"{chinese(n)}个半"]
    right += [f"{chinese(n)}个苹果"]
    wrong += [f"{n}?", f"{n}+", f"{n} below zero", f"{n}比7", f"{chinese(n)}比七", f"{n}'"]
    if n < 16:
        right += [ENGLISH[n], ENGLISH[n].capitalize(), f"{ENGLISH[n]} apples"]
        wrong += [
            f"{ENGLISH[n]} dozen",
            f"{ENGLISH[n]} hundred",
            f"{ENGLISH[n]} and a half",
            f"minus {ENGLISH[n]}",
            f"{ENGLISH[n]} thirds",
        ]
    return Answer(kind="numeral", reference=str(n), right=right, wrong=wrong)


def temperature(rng: random.Random) -> Answer:
    """Degrees Celsius."""
    n = rng.randint(2, 90)
    right = [f"{n}°C", f"{n} °C", rf"{n}^\circ C", rf"{n}^{{\circ}}\text{{C}}", f"{n}℃", f"{n}摄氏度", str(n)]
    wrong = [f"{n}°F", f"-{n}°C", f"{n + 1}°C", f"{n} K", f"零下{n}度", f"{n} rad"]
    return Answer(kind="temperature", reference=f"{n}°C", right=right, wrong=wrong)


def angle(rng: random.Random) -> Answer:
    """Degrees of an angle."""
    n = rng.randint(2, 179)
    right = [
        f"{n}°",
        rf"{n}^\circ",
        rf"{n}^{{\circ}}",
        f"{n} degrees",
        f"{n}度",
        str(n),
        rf"{n} \text{{ degrees}}",
        rf"\angle ABC = {n}^\circ",
    ]
    wrong = [f"{n} rad", f"-{n}°", f"{n + 1}°", f"{n}%", f"{n}°30'", rf"{n}\pi", f"{n} radians", f"{n}弧度", f"{n} m"]
    return Answer(kind="angle", reference=rng.choice([f"{n}°", rf"{n}^\circ"]), right=right, wrong=wrong)


NUMBERS: tuple[Maker, ...] = (
    whole, decimal, negative, fraction, root, circle, scientific, power, percentage, large, scale_word, measured,
    duration,
    clock, money, ratio, numeral, temperature, angle,
)  # fmt: skip
