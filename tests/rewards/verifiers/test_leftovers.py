"""Answers that units, commas, roots and two possibilities make doubtful."""

import pytest


@pytest.mark.parametrize(
    ("verifier", "reference", "response"),
    [
        ("numeric", "50 cm", "0.5 m"),
        ("numeric", "2 hours", "\\boxed{120 min}"),
        ("numeric(rel=0.01)", "0.5 A", "The answer is 500 mA."),
        ("math", "2\\sqrt{3}", "The side is 2 root 3."),
        ("math", "\\sqrt{5}", "The answer is the square root of 5."),
        ("math", "12.5", "The answer is 12,5."),
        ("math", "0.1234", "\\boxed{0,1234}"),
        ("math", "-7", "\\boxed{minus 7}"),
        ("count", "2", "**2个**"),
    ],
)
def test_right_answers(earns, verifier, reference, response):
    assert earns(verifier, reference, response)


@pytest.mark.parametrize(
    ("verifier", "reference", "response"),
    [
        ("numeric", "50 cm", "0.5 km"),
        ("numeric", "50 cm", "50 m"),
        ("numeric", "50 cm", "50 kg"),
        ("math", "2\\sqrt{3}", "The side is 2 cube root 3."),
        ("math", "2.743", "\\boxed{2,743}"),
        ("math", "12.5", "\\boxed{12, 5}"),
        ("math", "5", "\\boxed{\\binom{5}{1}}"),
        ("math", "7", "\\boxed{minus 7}"),
    ],
)
def test_wrong_answers(earns, verifier, reference, response):
    assert not earns(verifier, reference, response)


@pytest.mark.parametrize(
    "response",
    [
        "可能是A也可能是B",
        "It could be A, but it might be B.",
        "可能选B，也可能选A。",
        "It may be B; it could also be A.",
    ],
)
def test_two_possibilities_are_no_choice(earns, response):
    pets = ("cat", "dog", "bird", "fish")
    assert not earns("choice", "A", response, pets)
    assert not earns("choice", "B", response, pets)
