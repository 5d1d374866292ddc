"""Kinds of prompts that are easily answered by chance or wrong reasoning (Kimi k1.5, arXiv:2501.12599, §2.1)."""

from __future__ import annotations

import re
from typing import Literal

from rewards.types import Task
from rewards.verifiers.options import base_name

Kind = Literal["multiple_choice", "true_false", "proof", "open"]
PRONE: tuple[Kind, ...] = ("multiple_choice", "true_false", "proof")  # to false positives; k1.5 leaves them out

_TWO_VALUES = frozenset(
    {"true", "false", "yes", "no", "correct", "incorrect", "right", "wrong"}
    | {"是", "否", "对", "错", "正确", "错误", "不是", "不对"}
)
_TRUE_OR_FALSE = re.compile(
    r"\b(?:true or false|yes or no|true/false|yes/no)\b|判断(?:题|正误|对错)|是否正确", re.IGNORECASE
)
_PROOF = re.compile(
    r"(?:^|[.;,:?!\n(]\s*|\b(?:then|and|to)\s+)(?:prove|disprove|show that|verify that|demonstrate that)\b"
    r"|证明(?!书|信|文件)|求证",
    re.IGNORECASE,
)
_OPTION_LINE = r"(?:^|\n|\s)\(?{letter}[.):：、．)]\s*\S"


def kind_of(task: Task) -> Kind:
    """The kind of a task's prompt, by its verifier, its reference and the words of its question."""
    verifier, answer = base_name(task.verifier), task.answer.strip().strip(".。").casefold()
    if task.choices or verifier == "choice" or _lists_options(task):
        return "multiple_choice"
    if verifier == "yesno" or answer in _TWO_VALUES or _TRUE_OR_FALSE.search(task.question):
        return "true_false"
    return "proof" if _PROOF.search(task.question) else "open"


def _lists_options(task: Task) -> bool:
    """Whether the question lists options A, B and C, and the reference is one letter."""
    return re.fullmatch(r"\(?[A-Ja-j]\)?\.?", task.answer.strip()) is not None and all(
        re.search(_OPTION_LINE.format(letter=letter), task.question) for letter in "ABC"
    )
