"""Composed sentences: a right answer written otherwise stays right; another digit, sign, unit or letter is wrong.

A seed makes the sentences; `THINKVL_FUZZ=20000 pytest tests/rewards/verifiers/test_metamorphic.py` tries many more.
"""

import os
import random
from fractions import Fraction

import pytest

COUNT = int(os.environ.get("THINKVL_FUZZ", "150"))
ENGLISH = (
    "The answer is {}.",
    "So the answer is {}.",
    "Answer: {}",
    "\\boxed{{{}}}",
    "After some work we get \\boxed{{{}}}.",
    "<answer>{}</answer>",
    "Step 1: look at figure 2.\nStep 2: compute.\n\nThe answer is {}",
    "**{}**",
    "Therefore, the final answer is {}.",
)
CHINESE = ("答案是{}。", "所以答案为{}", "答案：{}", "因此，最终答案是\\boxed{{{}}}。", "由图1可知，答案是{}。")
THOUGHTS = ("", "◁think▷First 3, then 17, no.◁/think▷", "<think>maybe 5 or 6</think>\n")
UNITS = {"cm": "mm", "kg": "g", "m": "km", "s": "min", "km/h": "m/s", "cm^2": "cm", "V": "kV", "mL": "L"}
WORDS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"
]  # fmt: skip
NUMERALS = ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十", "十一", "十二")


def said(rng, answer):
    return rng.choice(THOUGHTS) + rng.choice(ENGLISH + CHINESE).format(answer)


def number(rng):
    """A reference, harmless rewritings of it, and what it is not."""
    kind = rng.choice(("whole", "decimal", "fraction", "large", "negative", "root", "power"))
    n = rng.randint(2, 999)
    if kind == "whole":
        return str(n), [f"{n}.0", f"+{n}", f"${n}$", f"{n}."[: -1 if n % 2 else None]], [n + 1, n - 1, f"-{n}", n * 10]
    if kind == "decimal":
        value = f"{n}.{rng.randint(1, 9)}"
        return value, [f"{value}0", f"${value}$"], [f"-{value}", f"{value}1", value.replace(".", ""), n]
    if kind == "fraction":
        top, bottom = rng.sample((2, 3, 5, 7, 9, 11, 13), 2)
        rewritten = [rf"\frac{{{top}}}{{{bottom}}}", rf"\dfrac{{{2 * top}}}{{{2 * bottom}}}", f"${top}/{bottom}$"]
        return f"{top}/{bottom}", rewritten, [f"{bottom}/{top}", f"-{top}/{bottom}", f"{top + 1}/{bottom}"]
    if kind == "large":
        n = rng.randint(1_000, 9_999_999)
        return str(n), [f"{n:,}", f"{n:,}".replace(",", " "), f"{n:,}".replace(",", "{,}")], [n + 1, f"{n + 10:,}", -n]
    if kind == "negative":
        return f"-{n}", [f"−{n}", f"negative {n}", f"minus {n}"], [n, f"-{n + 1}"]
    if kind == "root":
        k = rng.choice((2, 3, 5, 7))
        m = rng.randint(2, 9)
        return (
            rf"{m}\sqrt{{{k}}}",
            [f"{m}√{k}", rf"\sqrt{{{k}}}\cdot {m}"],
            [rf"{m}\sqrt{{{k + 1}}}", m, rf"\sqrt{{{k}}}"],
        )
    return rf"10^{{{n % 9 + 2}}}", [str(10 ** (n % 9 + 2))], [rf"10^{{{n % 9 + 3}}}", str(10 ** (n % 9 + 1))]


def measured(rng):
    value, unit = rng.randint(2, 99), rng.choice(list(UNITS))
    right = [f"{value} {unit}", rf"{value}\text{{ {unit}}}", f"{value}"]
    return f"{value} {unit}", right, [f"{value} {UNITS[unit]}", f"{value + 1} {unit}", f"-{value} {unit}"]


def check(rng, verifier, made, earns, choices=()):
    """The cases of one reference that the verifier gets wrong."""
    reference, right, wrong = made
    cases = [(answer, True) for answer in (reference, *right)] + [(answer, False) for answer in wrong]
    for answer, due in cases:
        response = said(rng, answer)
        if earns(verifier, reference, response, choices) is not due:
            yield f"{verifier} {reference!r} {choices or ''}: {response!r} {'missed' if due else 'paid'}"


@pytest.mark.parametrize("make", [number, measured])
def test_mathematics(earns, make):
    rng = random.Random(make.__name__)
    failures = [line for _ in range(COUNT) for line in check(rng, "math", make(rng), earns)]
    assert not failures, "\n".join(failures[:40])


def test_numbers_with_units_and_tolerance(earns):
    rng = random.Random("numeric")
    for _ in range(COUNT):
        value, unit = rng.randint(2, 99), rng.choice(["cm", "kg", "m", "s", "V"])
        larger, factor = {
            "cm": ("m", 100),
            "kg": ("g", 1 / 1000),
            "m": ("km", 1000),
            "s": ("min", 60),
            "V": ("kV", 1000),
        }[unit]
        converted = Fraction(value) / Fraction(factor).limit_denominator(1000)
        exact = f"{float(converted):.6g}"
        made = (
            f"{value} {unit}",
            [f"{value}", *([f"{exact} {larger}"] if Fraction(exact) == converted else [])],
            [f"{value} {larger}", f"{value * 2} {unit}", f"-{value} {unit}"],
        )
        failures = list(check(rng, "numeric(rel=0.001)", made, earns))
        assert not failures, "\n".join(failures)


def test_counts(earns):
    rng = random.Random("count")
    for _ in range(COUNT):
        n = rng.randint(2, 11)
        made = (str(n), [WORDS[n], f"{n} dogs", f"{NUMERALS[n]}个", f"{n}个"], [WORDS[n + 1], str(n - 1), f"{n} dozen"])
        failures = list(check(rng, "count", made, earns))
        assert not failures, "\n".join(failures)


def test_choices(earns):
    rng = random.Random("choice")
    options = ("cat", "dog", "bird", "fish")
    failures = []
    for _ in range(COUNT):
        index = rng.randrange(4)
        letter, other = "ABCD"[index], "ABCD"[(index + rng.randint(1, 3)) % 4]
        text = options[index]
        made = (
            letter,
            [f"({letter})", f"{letter}.", f"{letter}. {text}", text, f"option {letter}"],
            [
                other,
                f"({other})",
                f"{letter} or {other}",
                options["ABCD".index(other)],
                f"not {letter}",
                f"{letter}/{other}",
            ],
        )
        failures += check(rng, "choice", made, earns, options)
    assert not failures, "\n".join(failures[:40])
