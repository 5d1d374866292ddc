"""Sets of real numbers: which spellings are one set, which are not, and what is read as none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.math.intervals import chains_equal, parse_real_set, regions_equal

SAME = [
    ("x>2", "(2,\\infty)"), ("x \\ge 2", "[2,+\\infty)"), ("2<x\\le 3", "(2,3]"), ("(1,2)\\cup(2,3)", "1<x<3,x\\ne 2"),
    ("\\{x|x>1\\}", "\\{t \\mid t > 1\\}"), ("x \\ne \\pm 1", "\\mathbb{R}\\setminus\\{-1,1\\}"),
    ("[1,2]\\cup[2,3]", "[1,3]"),
    ("[1,2)\\cup(1,3]", "[1,3]"), ("\\{1\\}\\cup(1,2]", "[1,2]"), ("x<1 or x>0", "\\mathbb{R}"),
    ("(1,5)\\cap[2,9]", "[2,5)"),
    ("\\emptyset", "(1,2)\\cap(3,4)"), ("-x>1", "x<-1"), ("x\\in(0,1)", "0<x<1"), ("(\\frac{m}{2},m+1)", "(0.5m,1+m)"),
    ("(\\sqrt{2},\\pi)", "(2^{1/2},\\pi)"),
]  # fmt: skip
OTHER = [
    ("x>2", "x\\ge 2"), ("x>2", "x<2"), ("x>2", "y>2"), ("(1,2)", "(1,2]"), ("(1,2)\\cup(3,4)", "(1,4)"),
    ("(1,2)", "(1,3)"),
    ("[1,2]\\cup(2,3]", "[1,3)"), ("\\mathbb{R}", "x\\ne 0"), ("\\{1,2\\}", "[1,2]"), ("(0,m)", "(0,2m)"),
    ("(1,2)\\cup(2,3)", "(1,3)"), ("x>\\sqrt{2}", "x>1.4142135"),
]  # fmt: skip
NOT_READ = [
    "2x>4",
    "x^2<1",
    "5",
    "x",
    "(2,1)",
    "(1,2,3)",
    "x>y>z",
    "\\{x|y>1\\}",
    "hello",
    "(1,2",
    "x>1 and y<2",
    "",
    "[i,2]",
]


@pytest.mark.parametrize(("left", "right"), SAME)
def test_one_set(left, right):
    assert regions_equal(left, right) is True
    assert regions_equal(right, left) is True


@pytest.mark.parametrize(("left", "right"), OTHER)
def test_two_sets(left, right):
    assert regions_equal(left, right) is False
    assert regions_equal(right, left) is False


@pytest.mark.parametrize("text", NOT_READ)
def test_no_set(text):
    assert parse_real_set(text) is None


def test_chains():
    assert chains_equal("a<b\\le c", "c\\ge b>a") is True
    assert chains_equal("a<b<c", "a<c<b") is False
    assert chains_equal("a<b", "a\\le b") is False
    assert chains_equal("a", "a<b") is None


ENDS = st.integers(-5, 5)
BRACKETS = st.sampled_from(["[]", "[)", "(]", "()"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(ENDS, st.integers(1, 4), BRACKETS), min_size=1, max_size=4), st.randoms(use_true_random=False)
)
def test_order_does_not_matter_and_membership_does(parts, rng):
    written = [f"{b[0]}{low},{low + size}{b[1]}" for low, size, b in parts]
    shuffled = written[:]
    rng.shuffle(shuffled)
    assert regions_equal("\\cup".join(written), "\\cup".join(shuffled)) is True

    def member(x):
        return any(
            (low < x or (low == x and b[0] == "[")) and (x < low + size or (x == low + size and b[1] == "]"))
            for low, size, b in parts
        )

    for x in range(-6, 11):
        with_point = "\\cup".join([*written, f"\\{{{x}\\}}"])
        assert regions_equal("\\cup".join(written), with_point) is member(x)
