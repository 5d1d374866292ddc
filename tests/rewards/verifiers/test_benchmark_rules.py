"""The rules of public benchmarks, on the examples that their own code decides."""

import pytest

from rewards.types import Task, VerdictKind
from rewards.verifiers.builtin import build_verifier

RIGHT, WRONG, NONE = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER


class NoWorker:
    """Algebra is not needed here."""

    def call(self, request):
        return {"outcome": "unparsed"}

    def close(self):
        pass


def judge(spec, response, gold):
    task = Task(id="t", source="unit", question="", answer=gold)
    return build_verifier(spec, NoWorker())(response, gold, task=task).kind  # pyright: ignore


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("14", "14", RIGHT), ("14.7", "14", RIGHT), ("14.71", "14", WRONG), ("13.3", "14", RIGHT),
        ("13.29", "14", WRONG), ("0", "0", RIGHT), ("0.01", "0", WRONG), ("45%", "0.45", RIGHT), ("45%", "45", WRONG),
        ("Japan", "japan", RIGHT), ("Japan.", "Japan", RIGHT), ("South Japan", "Japan", WRONG),
        ("The answer is 14.", "14", RIGHT), ("\\boxed{14}", "14", RIGHT), ("<think>13</think>14", "14", RIGHT),
        ("<think>14", "14", NONE), ("Yes", "Yes", RIGHT), ("2,019", "2019", RIGHT),
    ],
)  # fmt: skip
def test_relaxed(response, gold, kind):
    assert judge("relaxed", response, gold) is kind


@pytest.mark.parametrize(
    ("spec", "response", "gold", "kind"),
    [
        ("contains", "It says CENTRE.", "centre", RIGHT), ("contains", "CENTER", "centre", WRONG),
        ("contains", "two\nlines", "two lines", RIGHT), ("contains", "ＣＥＮＴＲＥ", "centre", RIGHT),
        ("contains", "it is kitty", '["cat", "kitty"]', RIGHT),
        ("contains", "<think>centre</think>no", "centre", WRONG),
        ("contains", "", "centre", NONE), ("contains", "<think>centre", "centre", NONE),
        ("contains(formula=true)", "B a=C", "B a = C\n", RIGHT), ("contains(formula=true)", "b a=C", "B a = C", WRONG),
    ],
)  # fmt: skip
def test_contains(spec, response, gold, kind):
    assert judge(spec, response, gold) is kind


@pytest.mark.parametrize(
    ("spec", "response", "gold", "kind"),
    [
        ("integer", "1000", "1000", RIGHT), ("integer", "4.7", "4", RIGHT), ("integer", "3.9", "4", WRONG),
        ("integer", "The answer is 12 g.", "12", RIGHT), ("integer", "no idea", "4", NONE),
        ("integer", "It is **16 m**.\n\nIs there anything else I can help you with?", "16", RIGHT),
        ("integer", "Is there anything else?", "16", NONE),
        ("float, digits=1", "1.23", "1.2", RIGHT), ("float, digits=1", "1.27", "1.2", WRONG),
        ("float, digits=2", "0.21", "0.21", RIGHT), ("float, digits=1", "-0.04", "0.0", RIGHT),
        ("list", "the final list is [2014, 2016]", "[2014, 2016]", RIGHT),
        ("list", "[2014, 2015]", "[2014, 2016]", WRONG), ("list", "2014 and 2016", "[2014, 2016]", NONE),
    ],
)  # fmt: skip
def test_mathvista(spec, response, gold, kind):
    assert judge(f"mathvista(kind={spec})", response, gold) is kind


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("\\boxed{60}", "60", RIGHT), ("\\boxed{1.414}", "\\sqrt{2}", RIGHT), ("\\boxed{\\sqrt{2}}", "1.41", RIGHT),
        ("\\boxed{3.142}", "3.14", RIGHT), ("\\boxed{3.15}", "3.14", WRONG), ("\\boxed{0.33}", "1/3", RIGHT),
        ("\\boxed{61}", "60", WRONG),
    ],
)  # fmt: skip
def test_mathvision(response, gold, kind):
    assert judge("mathvision", response, gold) is kind


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("1.06", "1.06", RIGHT), ("So the thickness is 1.06 m", "1.06", RIGHT), ("1.064", "1.06", RIGHT),
        ("1.07", "1.06", WRONG), ("It is called Transformation.", "transformation", RIGHT),
        ("x = 2,000,000", "2000000", RIGHT), ("mgs", '["$MgS$", "MgS"]', RIGHT), ("B", "B", RIGHT), ("AB", "B", WRONG),
        ("the answer is b or not", "B", RIGHT), ("\\boxed{12.97}", "12.97", RIGHT), ("<think>8</think>9", "8", WRONG),
    ],
)  # fmt: skip
def test_mmmu_open(response, gold, kind):
    assert judge("mmmu_open", response, gold) is kind


def test_video_questions_know_more_phrases():
    assert judge("mmmu_open(video=true)", "there are five chairs\nfour tables", "five chairs") is RIGHT
    assert judge("mmmu_open", "there are five chairs\nit is four", "five chairs") is WRONG
