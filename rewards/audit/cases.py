"""What an audit tries on each task: the reference in other harmless clothes, and answers that must earn nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rewards.extraction import THINK_CLOSE, THINK_OPEN
from rewards.types import Task
from rewards.verifiers.builtin import VERIFIERS
from rewards.verifiers.equivalent_answers import in_box, is_one_line
from rewards.verifiers.options import base_name

_LONG = 100_000  # characters of a very long answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A response to try, and what it is an example of."""

    name: str
    response: str


def gold_case(task: Task) -> Case:
    """The reference as a model would give it: after some thinking, in a box, or in a tag where braces forbid a box."""
    return Case(name="gold", response=f"{THINK_OPEN}Let me see.{THINK_CLOSE}{in_box(task.answer)}")


def rewritings(task: Task) -> list[Case]:
    """Other ways to write the reference that must be right too; those of the task's verifier, each once."""
    gold = task.answer.strip()
    special = _special(task, "rewritings")
    cases = {"no thinking": in_box(gold), "spaces": f"\n  {in_box(f' {gold} ')}  \n"}
    if base_name(task.verifier) != "exact":
        cases["tag"] = f"<answer>{gold}</answer>"
    if is_one_line(gold):
        cases["bare"] = gold
        cases["sentence"] = f"The answer is {gold}"
        if base_name(task.verifier) not in ("exact", "ocr", "json") and gold[-1:].isalnum():
            cases["final stop"] = f"The answer is {gold}."
    return [Case(name=name, response=text) for name, text in {**cases, **special}.items()]


def cheats(task: Task, others: Sequence[str]) -> list[Case]:
    """Answers that commit to nothing or to too much; `others` are references that are not right here."""
    gold = task.answer.strip()
    cases = {
        "empty": "",
        "blank": " \n ",
        "empty box": r"\boxed{}",
        "only thinking": f"{THINK_OPEN}{in_box(gold)}{THINK_CLOSE}",
        "thinking left open": f"{THINK_OPEN}It is {in_box(gold)}",
    }
    if others:
        other = others[0]
        cases["hedge"] = in_box(f"{gold} or {other}")
        cases["hedge, the other way round"] = in_box(f"{other} or {gold}")
        cases["hedged sentence"] = f"The answer is {gold} or {other}."
        cases["very long"] = in_box(f"{gold} {other} " * (_LONG // (len(gold) + len(other) + 2) + 1))
        cases["flood of lines"] = f"{gold}\n{other}\n" * min(2_000, _LONG // (len(gold) + len(other) + 2) + 1)
    if len(others) > 2:
        cases["list of answers"] = in_box(", ".join([*others[:2], gold, others[2]]))
    cases |= _special(task, "cheats")
    return [Case(name=name, response=text) for name, text in cases.items()]


def _special(task: Task, kind: Literal["rewritings", "cheats"]) -> dict[str, str]:
    """The cases that the task's verifier has of its own; a plug-in has none."""
    verifier = VERIFIERS.get(base_name(task.verifier))
    return getattr(verifier, kind)(task) if verifier is not None else {}
