"""No regular expression that reads untrusted text backtracks without bound: the work is counted, not timed.

`regex_steps` walks each pattern as `re` does and counts the characters that it looks at. Twice the text may cost about
twice the work; what `fullmatch` applies to a text of bounded length may cost its square.
"""

import importlib
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from regex_steps import steps

MODULES = (
    "extraction sentences math.normalize math.spoken math.literal math.units math.limits math.answer_parts "
    "math.matrices math.intervals math.comparison math.tokens math.prose math.quantity "
    "math.reading verifiers.math verifiers.choice verifiers.choice_letters verifiers.choice_texts "
    "verifiers.regions"
)
PIECES = (
    "\\boxed{", "\\frac{", "\\text{", "{", "}", "\\", "1", "1,111", " ", "a", "A ", "(", "[", "\\{x,", "x=",
    "$", "\\(", "**", "<",
    "answer ", '"answer":"', "not A", "A or ", "_", "^", "'", "10^", "(1,", "x\\in ", "½", "或",
    "\\begin{pmatrix}", "&", "is 1 and ",
    "1.1", "cm ",
)  # fmt: skip
BOUNDED = {  # applied to one literal, unit, label or bracketed set: at most a few hundred characters
    "literal", "units._CELSIUS", "units._DEGREE", "units._SUFFIX", "intervals._REALS", "intervals._INFINITY",
    "matrices._ENVIRONMENT", "spoken", "choice_letters._BARE_LIST", "comparison._SPACE", "normalize._QUANTIFIER",
}  # fmt: skip


def patterns():
    for name in MODULES.split():
        for key, value in vars(importlib.import_module(f"rewards.{name}")).items():
            found = [value] if isinstance(value, re.Pattern) else []
            if isinstance(value, tuple):
                found = [row[0] for row in value if isinstance(row, tuple) and row and isinstance(row[0], re.Pattern)]
            yield from ((f"{name.split('.')[-1]}.{key}", pattern) for pattern in found)


PATTERNS = list({(key, pattern.pattern): (key, pattern) for key, pattern in patterns()}.values())


def worst(key, pattern, text, times):
    """The growth of the work when the text is twice as long, and the work for each character of it."""
    short, long = steps(pattern, text * times), steps(pattern, text * 2 * times)
    return long / max(short, 1), long / (len(text) * 2 * times)


def allowed(key, pattern, text, times):
    growth, each = worst(key, pattern, text, times)
    bounded = key in BOUNDED or key.partition(".")[0] in BOUNDED
    return growth < (4.6 if bounded else 2.7) or each < 60


def test_the_counter_sees_exponential_and_linear_work():
    sys.setrecursionlimit(10_000)
    assert steps(re.compile(r"(a|aa)+$"), "a" * 24 + "b", 10**5) == 10**5
    assert steps(re.compile(r"(\w+\s?)+$"), "a" * 30 + "!", 10**5) == 10**5
    linear = re.compile(r"\\boxed\{[^{}]{1,5}\}")
    assert worst("", linear, "\\boxed{", 20)[0] < 2.2
    assert worst("", re.compile(r"\s*x"), " ", 40)[0] > 3.5
    assert steps(re.compile(r"ab|c"), "abcab") == 8  # ab; a and c; ab; and twice the end


def test_there_are_patterns():
    assert len(PATTERNS) > 100


@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_repeats_cost_linear_work(piece):
    sys.setrecursionlimit(10_000)
    times = max(5, 36 // len(piece))
    bad = [key for key, pattern in PATTERNS if not allowed(key, pattern, piece, times)]
    assert bad == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join), st.data())
def test_repeats_of_mixtures_cost_linear_work(text, data):
    sys.setrecursionlimit(10_000)
    key, pattern = data.draw(st.sampled_from(PATTERNS))
    assert allowed(key, pattern, text, 6), (key, text)
