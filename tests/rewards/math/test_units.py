"""Units and what is written out in words: what is split off, what agrees, what converts."""

from fractions import Fraction

import pytest

from rewards.math.normalize import to_latex
from rewards.math.spoken import arc_degrees, chinese_number, clock_time, english_number, scaled, times_equal
from rewards.math.units import conversion, split_unit, units_agree


@pytest.mark.parametrize(
    ("text", "value", "unit"),
    [
        ("10\\text{ cm}^2", "10", "cm^2"), ("5 apples", "5", "apples"), ("90^\\circ", "90", "deg"), ("\\$3", "3", "$"),
        ("3 m", "3", "m"), ("3厘米", "3", "cm"), ("7个", "7", "个"), ("2 hours", "2", "h"), ("-\\$5", "-5", "$"),
        ("€5", "5", "€"),
        ("4\\sqrt{2}\\text{ cm}", "4\\sqrt{2}", "cm"), ("25\\pi\\text{ cm}^2", "25\\pi", "cm^2"),
        ("9 square feet", "9", "ft^2"),
        ("16 cubic meters", "16", "m^3"), ("30^\\circ 15'", "121/4", "deg"), ("20^\\circ\\text{C}", "20", "°C"),
    ],
)  # fmt: skip
def test_units_are_split_off(text, value, unit):
    measure = split_unit(to_latex(text))
    assert (measure.text, measure.unit) == (value, unit)


@pytest.mark.parametrize(
    "text",
    [
        "10m",
        "2m",
        "5a",
        "3ab",
        "x",
        "2 sin x",
        "\\sin 30^\\circ",
        "\\pi r^2 h",
        "a^3 b^2",
        "42 is wrong",
        "6 or 7",
        "2^m",
    ],
)
def test_letters_are_no_units(text):
    assert split_unit(to_latex(text)).unit == ""


def test_conversion():
    assert conversion("min", "h") == 60
    assert conversion("m", "cm") == Fraction(1, 100)
    assert conversion("m^2", "cm^2") == Fraction(1, 10_000)
    assert conversion("apples", "cm") == conversion("kg", "") == 1
    assert not units_agree("m", "kg")
    assert not units_agree("m", "m^2")
    assert not units_agree("$", "€")
    assert units_agree("m", "") and units_agree("apples", "m") and units_agree("deg", "rad")  # noqa: PT018


def test_numbers_in_words():
    assert chinese_number("十二") == "12"
    assert chinese_number("三百零五") == "305"
    assert chinese_number("三分之二") == "2/3"
    assert chinese_number("百分之二十") == "20%"
    assert chinese_number("二点五") == "2.5"
    assert chinese_number("二〇二四") == "2024"
    assert [chinese_number(text) for text in ("", "苹果", "十二个", "分之", "十1")] == [None] * 5
    assert english_number("forty-two") == "42"
    assert english_number("three hundred and five") == "305"
    assert english_number("two thirds") == "2/3"
    assert english_number("one thousand two hundred") == "1200"
    assert [english_number(text) for text in ("", "a dog", "forty dogs", "and")] == [None] * 4
    assert scaled("2.5 million") == "2.5 \\times 10^{6} "
    assert scaled("millions") == "millions"


def test_times_and_arcs():
    assert clock_time("3:30 pm") == (12600, "p")
    assert clock_time("25:00 pm") is clock_time("3:75 pm") is clock_time("7") is None
    assert times_equal("3:30 \\text{ p.m.}", "15:30") is True
    assert times_equal("3:30 pm", "3:30 am") is False
    assert times_equal("12:15 am", "0:15") is True
    assert times_equal("3:30", "3:30") is None
    assert arc_degrees("10^\\circ 30'") == "21/2"
    assert arc_degrees("10^\\circ 30' 36\"") == "1051/100"
    assert arc_degrees("10^\\circ") is None
