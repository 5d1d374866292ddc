"""Yes or no in several languages, and what says both."""

import pytest

from rewards.types import Task, VerdictKind
from rewards.verifiers.ocr import OcrVerifier
from rewards.verifiers.text import ExactVerifier, TextVerifier
from rewards.verifiers.yesno import YesNoVerifier

C, W, N, B = VerdictKind.CORRECT, VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.BAD_REFERENCE


def judge(verifier, response, gold):
    return verifier(response, gold, task=Task(id="t", source="unit", question="", answer=gold))


@pytest.mark.parametrize(
    "yes", ["Yes", "YES.", "yes, it is", "y", "True", "oui", "Ja.", "sí", "да", "是的。", "はい", "예"]
)
@pytest.mark.parametrize("no", ["no", "No.", "nein", "não", "нет", "不是", "没有", "いいえ", "아니요", "False"])
def test_languages(yes, no):
    verifier = YesNoVerifier()
    assert judge(verifier, yes, "yes").kind is C
    assert judge(verifier, no, "yes").kind is W
    assert judge(verifier, yes, no).kind is W
    assert judge(verifier, f"\\boxed{{{no.strip('.')}}}", no).kind is C


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("Yes, there is no circle.", "yes", C),
        ("No, it isn't", "no", C),
        ("The answer is yes.", "yes", C),
        ("It is yes", "yes", C),
        ("Yes.\nThe shape is a circle.", "yes", C),
        ("**Yes**", "yes", C),
        ("\\boxed{\\text{Yes}}", "yes", C),
        ("Definitely yes!", "yes", C),
        ("◁think▷ no ◁/think▷ yes", "yes", C),
        ("yes or no", "yes", N),
        ("yes/no", "yes", N),
        ("Yes. No.", "yes", N),
        ("Yes and no", "yes", N),
        ("\\boxed{yes or teal}", "yes", N),
        ("\\boxed{teal or yes}", "yes", N),
        ("是或不是", "是", N),
        ("not yes", "no", N),
        ("No wait. Yes", "yes", N),
        ("Yes.\nNo.", "no", C),
        ("neither yes nor no", "no", N),
        ("yes no", "yes", N),
        ("There is no circle.", "no", N),
        ("I don't know", "no", N),
        ("nothing", "no", N),
        ("know", "no", N),
        ("", "no", N),
        ("yes " * 1000, "yes", N),
        ("yes", "maybe", B),
        ("yes", "yes or no", B),
        ("yes", "", B),
    ],
)
def test_one_of_them_is_said(response, gold, kind):
    assert judge(YesNoVerifier(), response, gold).kind is kind
    if gold in ("yes", "no"):
        assert judge(TextVerifier(), response, gold).kind is kind, "the text verifier decides such answers the same way"


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("\\boxed{Ab 12}", "Ab 12", C),
        ("Ab 12.", "Ab 12", C),
        ("**Ab 12**", "Ab 12", C),
        ("The answer is Ab 12", "Ab 12", C),
        ("ab 12", "Ab 12", W),
        ("Ab  12", "Ab 12", W),
        ("Ab 12 or Ab 13", "Ab 12", W),
        ("Ab 12.", "Ab 12.", C),
        ("e\u0301", "\u00e9", C),
        ("", "x", N),
        ("x" * 1000, "x", N),
        ("x", " ", B),
    ],
)
def test_exact(response, gold, kind):
    assert judge(ExactVerifier(), response, gold).kind is kind


def test_ocr_by_hand():
    verifier = OcrVerifier(threshold=0.9)
    found = judge(verifier, "\\boxed{hello wor1d}", "hello world")  # 1 of 11 characters
    assert (found.kind, found.detail, found.score) == (C, "0.9091", 1.0)
    found = judge(verifier, "hallo wor1d", "hello world")
    assert (found.kind, found.score) == (W, 0.0)
    found = judge(OcrVerifier(threshold=0.9, partial=True), "hallo wor1d", "hello world")
    assert (found.kind, found.score) == (W, pytest.approx(9 / 11))


@pytest.mark.parametrize(
    ("response", "gold", "kind"),
    [
        ("first line\nsecond   line", "first line\nsecond line", C),
        ("```\nfirst line\nsecond line\n```", "first line second line", C),
        ("Ｈｅｌｌｏ", "Hello", C),
        ("HELLO", "Hello", W),
        ("你好世界", "你好世界", C),
        ("", "a", N),
        ("◁think▷ a", "a", N),
        ("cat or car", "cat", W),
        ("x" * 100_000, "abc", N),
        ("a", "  ", B),
        ("a", "a" * 30_000, B),
    ],
)
def test_ocr(response, gold, kind):
    assert judge(OcrVerifier(), response, gold).kind is kind
    assert judge(OcrVerifier(case=False), "HELLO", "Hello").kind is C


def test_ocr_options():
    with pytest.raises(ValueError, match=r"threshold = 0.2: must be between 0.5 and 1"):
        OcrVerifier(threshold=0.2)
