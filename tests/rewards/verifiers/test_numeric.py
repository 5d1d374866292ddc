"""Numbers within a tolerance, and counts."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.types import Task, VerdictKind
from rewards.verifiers.numeric import CountVerifier, NumericVerifier, read_number

C, W, N, B = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.BAD_REFERENCE


def judge(verifier, response, gold):
    return verifier(response, gold, task=Task(id="t", source="unit", question="", answer=gold))


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("\\boxed{101}", "100", C), ("\\boxed{99}", "100", C), ("101.0000001", "100", W), ("98.99", "100", W),
        ("-100", "100", W), ("−100", "-100", C), ("99", "-100", W),
        ("The answer is 1.5 million.", "1,500,000", C), ("$1.5 billion", "1500000000", C), ("1.5 million", "1.5", W),
        ("5 million dollars", "5000000", C), ("about 45%", "45", C), ("0.45", "45%", C), ("45", "45%", C),
        ("4.5", "45%", W), ("1e2", "100", C), ("\\boxed{\\frac{1}{2}}", "0.5", C), ("$99.5", "$100", C),
        ("100 m", "100 km", W),
        ("100 meters", "100 m", C), ("$100", "100 dollars", C),
        ("100 m", "100", C), ("100", "100 m", C), ("x = 100", "100", C),
        ("12 + 88 = 100", "100", C), ("The population is 100 people.", "100", C), ("It is \\(100\\).", "100", C),
        ("**100**", "100", C), ("◁think▷ 7 ◁/think▷ 100", "100", C), ("0", "0", C), ("0.001", "0", W),
    ],
)  # fmt: skip
def test_within_one_percent(response, gold, kind):
    assert judge(NumericVerifier(rel=0.01), response, gold).kind is kind


@pytest.mark.parametrize(
    "response",
    [
        "Were there 100 of them?",
        "between 99 and 101", "99-101", "99 to 101", "100 or 5", "100 ± 1", "not 100", "more than 100", "~ maybe 100",
        "There are 100 cats and 2 dogs", "12 + 88", "100, 200", "2^10 is 100", "\\boxed{100^{9^{9^9}}}", "100!", "",
        "\\boxed{}", "◁think▷ 100 ◁/think▷", "◁think▷ 100", "nan", "inf", "\\boxed{" + "1" * 500 + "}",
        "\\boxed{" + "100 " * 10_000 + "}", "((((" * 10_000, "1/0",
    ],
)  # fmt: skip
def test_no_number_is_committed_to(response):
    assert judge(NumericVerifier(rel=0.01), response, "100").kind is N


def test_the_tolerance_ends_where_it_says():
    assert judge(NumericVerifier(abs=0.1), "0.3", "0.2").kind is C  # 0.3 - 0.2 <= 0.1 fails in floats
    assert judge(NumericVerifier(abs=0.1), "0.30001", "0.2").kind is W
    assert judge(NumericVerifier(abs=5, rel=0.01), "104", "100").kind is C
    assert judge(NumericVerifier(), "100.0", "100").kind is C
    assert judge(NumericVerifier(), "100.1", "100").kind is W


@pytest.mark.parametrize("gold", ["abc", "", "1 or 2", "9" * 1000, "x"])
def test_references_that_are_no_number(gold):
    assert judge(NumericVerifier(), "1", gold).kind is B


@pytest.mark.parametrize("options", [{"rel": 1}, {"rel": -0.1}, {"abs": -1}])
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match="must be"):
        NumericVerifier(**options)


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_exact_numbers(left, right):
    assert judge(NumericVerifier(), f"\\boxed{{{left}}}", f"{right:,}").kind is (C if left == right else W)


@given(st.text(alphabet="0123456789.,-+/%$eE^ \\{}()=mk", max_size=60))
def test_any_text_is_survived(text):
    number = read_number(text)
    assert number is None or isinstance(number.value, Fraction)
    judge(NumericVerifier(rel=0.1), text, "12")
    judge(CountVerifier(), text, "12")


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("three", "3", C), ("There are three dogs.", "3", C), ("3 dogs", "3", C), ("三个", "3", C), ("3", "three", C),
        ("twenty-one", "21", C), ("twenty one", "21", C), ("3.0", "3", C), ("3.5", "3", W), ("none", "0", C),
        ("There are 3 dogs (three).", "3", C), ("2 + 1 = 3", "3", C), ("I count 1, 2, 3. So 3.", "3", C),
        ("3%", "3", W), ("-3", "3", W), ("3 cats and 2 dogs", "3", N), ("two or three", "3", N), ("1, 2, 3", "3", N),
        ("at least 3", "3", N), ("\\boxed{3 or 4}", "3", N), ("many", "3", N), ("bone", "1", N), ("1,000", "1000", C),
        ("3", "3.5", B), ("3", "many", B), ("3", "-3", B),
    ],
)  # fmt: skip
def test_counts(response, gold, kind):
    assert judge(CountVerifier(), response, gold).kind is kind
