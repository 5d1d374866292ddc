"""Hostile answers to every verifier of short answers: nothing is earned, nothing raises, and a hang names itself."""

import pytest

from rewards.types import Task, VerdictKind
from rewards.verifiers.builtin import build_verifier

GOLDS = {
    "numeric(rel=0.01)": "12",
    "count": "12",
    "text": "a cat",
    "exact": "a cat",
    "yes_no": "yes",
    "ocr(threshold=0.8)": "a cat on a mat",
    "box": "[1, 2, 3, 4]",
    "point(radius=1)": "[1, 2]",
    "json(order=false)": '{"a": [1, 2]}',
    "relaxed": "12",
    "mathvista(kind=integer)": "12",
    "mathvista(kind=list)": "[1, 2]",
}
SIZE = 60_000
HOSTILE = {
    "digits": "9" * SIZE,
    "tower": "\\boxed{12^{9^{9^{9}}}}",
    "factorial": "\\boxed{12!!!!}",
    "numbers": "1 " * SIZE,
    "minus": "-" * SIZE,
    "commas": "1," * SIZE,
    "spaces": " " * SIZE + "x" + " " * SIZE,
    "number and spaces": "12" + " " * SIZE + "x",
    "open brackets": "[" * SIZE,
    "nested brackets": "[" * 5_000 + "]" * 5_000,
    "parentheses": "(1," * SIZE,
    "braces": "{" * SIZE,
    "boxes": "\\boxed{" * 10_000,
    "quotes": '"' * SIZE,
    "backslashes": '"\\' * SIZE,
    "fences": "```\n" * 20_000,
    "backticks": "`" * SIZE,
    "tags": "<box>" * 20_000 + "</box>" * 20_000,
    "points": "<point " * 20_000,
    "point attributes": '<point x="1" ' * 10_000,
    "specials": "<|box_start|>" * 10_000,
    "think": "◁think▷" * 10_000,
    "answers": "the answer is " * 10_000,
    "yes": "yes no " * 20_000,
    "or": " or " * 20_000,
    "so": "so " * 30_000 + "x",
    "stops": "." * SIZE,
    "lines": "\n" * SIZE,
    "expanding": "\ufdfa" * SIZE,
    "combining": "a" + "\u0301" * SIZE,
    "surrogate": "\ud800",
    "nul": "\x00" * 1000,
    "right to left": "\u202e21 sey",
    "code": "__import__('os').system('true')",
    "exponent": "1e999999999",
    "half number": "12" + "." * 1000,
    "slash": "1/" * SIZE,
}


@pytest.mark.parametrize("spec", GOLDS)
def test_nothing_is_earned(spec):
    verifier, gold = build_verifier(spec, None), GOLDS[spec]
    task = Task(id="t", source="unit", question="", answer=gold)
    earned = {}
    for name, text in HOSTILE.items():
        for response in (text, f"\\boxed{{{text}}}", f"◁think▷ ◁/think▷ The answer is {text}"):
            verdict = verifier(response, gold, task=task)
            if verdict.kind not in (VerdictKind.WRONG, VerdictKind.NO_ANSWER):
                earned[name] = verdict
    assert not earned


@pytest.mark.parametrize("spec", GOLDS)
def test_hostile_references_are_told_and_never_right(spec):
    verifier = build_verifier(spec, None)
    for text in HOSTILE.values():
        task = Task(id="t", source="unit", question="", answer=text)
        assert verifier("zebra", text, task=task).kind is not VerdictKind.CORRECT
