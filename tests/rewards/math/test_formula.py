"""Our own grammar and the values of what it reads: hand-computed numbers, identities, differences, bounds."""

import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.math.formula import Unreadable, parse_formula
from rewards.math.nodes import Node, letters, rename
from rewards.math.values import nodes_equal, value_of


def formulas_equal(left, right):
    return nodes_equal(parse_formula(left), parse_formula(right))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7), ("-2^2", -4), ("2^{3^2}", 512), ("6/2/3", 1), ("2\\frac{1}{3}", Fraction(7, 3)),
        ("\\frac{1}{2}-\\frac13", Fraction(1, 6)), ("1.25", Fraction(5, 4)), ("4!", 24), ("\\binom{5}{2}", 10),
        ("\\sqrt{16}", 4), ("|-3|", 3), ("\\lfloor 7/2 \\rfloor", 3), ("\\lceil 7/2 \\rceil", 4),
        ("2^{-3}", Fraction(1, 8)),
        ("1,234.5", Fraction(2469, 2)), ("(1+2)(3+4)", 21), ("3(2)", 6), ("10^-2", Fraction(1, 100)), ("--3", 3),
    ],
)  # fmt: skip
def test_rational_values(text, value):
    assert value_of(parse_formula(text)) == Fraction(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("\\sqrt2", 1.4142135623730951), ("\\pi/4", 0.7853981633974483), ("e^2", 7.38905609893065),
        ("\\log_2 8", 3.0), ("\\log 100", 4.605170185988092), ("\\lg 100", 2.0), ("\\sin 30^\\circ", 0.5),
        ("\\sin^{-1} 1", 1.5707963267948966), ("\\sin^2 1", 0.7080734182735712), ("\\sqrt[3]{-8}", -2.0),
        ("\\cos\\frac{\\pi}{3}", 0.5), ("2^{1/2}", 1.4142135623730951), ("\\arctan 1", 0.7853981633974483),
    ],
)  # fmt: skip
def test_real_values(text, value):
    assert abs(float(value_of(parse_formula(text))) - value) < 1e-12


@pytest.mark.parametrize(
    "text",
    [
        "", "+", "x+", "(1", "1)", "{1", "\\frac{1}", "x^", "\\unknown", "hello", "1 2", "4{2}", "5_3", "x<2", "a,b",
        "\\text{yes}", "\\begin{pmatrix}1\\end{pmatrix}", "__import__('os')", "x.real", "\\sqrt[", "é", "1..2",
        "(" * 100 + "1" + ")" * 100, "-" * 100 + "1", "x" * 3000,
    ],
)  # fmt: skip
def test_what_it_does_not_read(text):
    with pytest.raises(Unreadable):
        parse_formula(text)


@pytest.mark.parametrize(
    "text", ["1/0", "0^{-1}", "\\ln 0", "\\infty", "2^{10^9}", "9^{9^{9}}", "3000!", "\\tan 10^{20}", "e^{e^{20}}"]
)
def test_what_has_no_value_here(text):
    assert value_of(parse_formula(text)) is None
    assert formulas_equal(text, "1") in (None, False)


def test_tiny_numbers_differ_and_large_ones_are_exact():
    assert formulas_equal("1/2^{400}", "1/2^{401}") is False
    assert formulas_equal("2^{400}+1", "2^{400}") is False
    assert formulas_equal("\\pi\\cdot 10^{-60}", "2\\pi\\cdot 10^{-60}") is False
    assert formulas_equal("\\sqrt2\\sqrt3-\\sqrt6", "0") is True
    assert formulas_equal("(\\sqrt2-1)^{20}", "22619537-15994428\\sqrt2") is True


@pytest.mark.parametrize(
    ("left", "right"),
    [("|x|", "x"), ("\\sqrt{x^2}", "x"), ("\\frac{1}{x}", "x"), ("\\sin x", "x"), ("x_1", "x_2"), ("f(1)", "f(2)")],
)
def test_they_differ(left, right):
    assert formulas_equal(left, right) is False


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("(-1)^n", "\\cos(n\\pi)"), ("\\lfloor\\frac{n+1}{2}\\rfloor", "\\lceil\\frac n2\\rceil"),
        ("\\sqrt[3]{x^2-2}^2", "(x^2-2)^{2/3}"), ("\\frac{n!}{(n-1)!}", "n"), ("a_1+\\cdots+a_n", "a_n+\\cdots+a_1"),
        ("\\sum_{k=1}^{n} a_k b_k", "\\sum_{k=1}^{n} b_k a_k"),
    ],
)  # fmt: skip
def test_they_are_equal(left, right):
    assert formulas_equal(left, right) is True


NUMBERS = st.integers(-30, 30).map(lambda n: Node("num", value=Fraction(n)))
LEAVES = st.one_of(NUMBERS, st.sampled_from("xyz").map(lambda name: Node("sym", name=name)))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda pair: Node("add", pair)),
        st.tuples(inner, inner).map(lambda pair: Node("mul", pair)),
        inner.map(lambda node: Node("neg", (node,))),
        inner.map(lambda node: Node("pow", (node, Node("num", value=Fraction(2))))),
    ),
    max_leaves=8,
)


def written(node):
    if node.op == "num":
        return f"({node.value})"
    if node.op == "sym":
        return node.name
    parts = [written(arg) for arg in node.args]
    return {"add": "({}+{})", "mul": "{}\\cdot {}", "neg": "(-{})", "pow": "({})^{{2}}"}[node.op].format(
        *parts, *(["2"] if node.op == "pow" else [])
    )


@settings(max_examples=150, deadline=None)
@given(TREES)
def test_what_is_written_is_read_back(node):
    assert nodes_equal(parse_formula(written(node)), node) is True


@settings(max_examples=150, deadline=None)
@given(TREES, TREES)
def test_equality_is_symmetric_and_survives_renaming(one, other):
    assert nodes_equal(one, other) == nodes_equal(other, one)
    new = rename(one, "x", "w")
    assert "x" not in letters(new)
    assert nodes_equal(rename(new, "w", "x"), one) is True
    assert nodes_equal(one, Node("add", (one, Node("num", value=Fraction(1))))) is False


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789xyn+-*/^_{}()[]|!.,=<\\ sqrtfacpilogmdbxe", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        node = parse_formula(text)
    except Unreadable:
        return
    assert nodes_equal(node, node) in (True, None)


def test_threads_do_not_share_a_precision():
    found = []

    def work():
        found.append([formulas_equal("\\sqrt{12}", "2\\sqrt3"), formulas_equal("\\sqrt{12}", "2\\sqrt3+10^{-25}")])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[True, False]] * 8
