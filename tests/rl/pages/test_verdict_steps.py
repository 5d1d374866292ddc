"""A verdict in sentences: every rule of the built-in verifiers has words, and each kind says what became of it."""

import re
from pathlib import Path

import pytest

import rewards
from rl.pages.verdict_steps import COMPARISON, EXTRACTION, NOT_COMPARABLE, WITHOUT_ANSWER, verdict_steps

ROW = {
    "rule": "line/exact-rational",
    "verdict": "wrong",
    "extracted": "19",
    "detail": "",
    "parts": [("verifier", 0.0)],
    "failures": [],
    "reward": 0.0,
    "shaped_reward": None,
    "advantage": -0.5,
}


def test_the_steps_of_a_wrong_answer():
    assert verdict_steps(ROW, "closed") == [
        "Thinking: one block, closed; only the text after it counts.",
        "Extracted from the last line that is not empty (rule line).",
        "Compared with the reference as exact fractions (rule exact-rational). They differ.",
        "Reward terms: verifier 0.",
        "Reward 0.",
    ]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"verdict": "correct"},
            "Compared with the reference as exact fractions (rule exact-rational). They are equal.",
        ),
        ({"rule": "box/unit"}, "Its unit does not fit that of the reference, or one of the two has none. (rule unit)"),
        ({"rule": "mine.py:f"}, "Compared by rule mine.py:f. They differ."),
        (
            {"rule": "open-thinking", "verdict": "no_answer", "extracted": None},
            "No answer: The think block was never closed, so nothing after it counts. (rule open-thinking)",
        ),
        ({"verdict": "timeout"}, "The verifier reached its time limit, so this rollout left its group."),
        ({"verdict": "crash", "detail": "boom"}, "The verifier says: boom"),
        ({"reward": None, "failures": [("judge", "timeout")]}, "Reward terms: verifier 0, judge failed (timeout)."),
        ({"reward": None}, "No reward: it is never counted as zero."),
        ({"shaped_reward": -0.25}, "Reward 0, shaped to -0.25."),
        ({"advantage": None}, "Not trained on: its group had no signal, or it was left out."),
    ],
)
def test_a_sentence_for_each_outcome(changes, sentence):
    assert sentence in verdict_steps({**ROW, **changes}, "closed")


def test_every_rule_of_the_maths_verifier_and_of_extraction_has_words():
    known = {*EXTRACTION, *WITHOUT_ANSWER, *COMPARISON, *NOT_COMPARABLE, "reference"}
    for name in ("extraction.py", "verifiers/math.py", "verifiers/verdicts.py", "verifiers/regions.py"):
        text = (Path(rewards.__file__).parent / name).read_text(encoding="utf-8")
        rules = {part for rule in re.findall(r'rule="([\w/-]+)"', text) for part in rule.split("/")}
        assert rules
        assert rules <= known, rules - known
