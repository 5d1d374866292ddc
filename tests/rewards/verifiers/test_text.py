"""Short free text: equality up to case, articles, punctuation and number words."""

import pytest

from rewards.types import Task, VerdictKind
from rewards.verifiers.text import TextVerifier


def judge(response, gold):
    return TextVerifier()(response, gold, task=Task(id="t", source="unit", question="", answer=gold)).kind


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("teal", "teal"), ("Teal.", "teal"), ("The answer is teal.", "teal"), ("a rectangle", "rectangle"),
        ("The shape is a rectangle.", "rectangle"), ("Yes", "yes"), ("Yes, there is.", "yes"),
        ("two", "2"), ("2", "two"),
        ("\\boxed{\\text{Teal}}", "teal"), ("<answer> light  blue </answer>", "light blue"), ("ＴＥＡＬ", "teal"),
        ("◁think▷ no? ◁/think▷ yes", "yes"), ("**no**", "No"), ("red or blue", "red or blue"),
    ],
)  # fmt: skip
def test_right(response, gold):
    assert judge(response, gold) is VerdictKind.CORRECT


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("blue", "teal", VerdictKind.WRONG),
        ("not teal", "teal", VerdictKind.WRONG),
        ("It is not teal", "teal", VerdictKind.WRONG),
        ("tealish", "teal", VerdictKind.WRONG),
        ("No, yes", "yes", VerdictKind.NO_ANSWER),
        ("yes or no", "yes", VerdictKind.NO_ANSWER),
        ("yes/no", "yes", VerdictKind.NO_ANSWER),
        ("It is red or teal", "teal", VerdictKind.NO_ANSWER),
        ("teal " * 500, "teal", VerdictKind.NO_ANSWER),
        ("", "teal", VerdictKind.NO_ANSWER),
        ("<answer></answer>", "teal", VerdictKind.NO_ANSWER),
        ("teal", "", VerdictKind.BAD_REFERENCE),
        ("", "?", VerdictKind.BAD_REFERENCE),
    ],
)
def test_not_right(response, gold, kind):
    assert judge(response, gold) is kind
