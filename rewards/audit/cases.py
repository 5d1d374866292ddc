"""What an audit tries on each task: the reference in other harmless clothes, and answers that must earn nothing."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rewards.extraction import THINK_CLOSE, THINK_OPEN
from rewards.types import Task
from rewards.verifiers.choice import reference_index
from rewards.verifiers.json_answer import NotJson, read_json
from rewards.verifiers.options import base_name

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LONG = 100_000  # characters of a very long answer
_FRACTION = re.compile(r"(-?)(\d{1,12})/(\d{1,12})")
_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A response to try, and what it is an example of."""

    name: str
    response: str


def gold_case(task: Task) -> Case:
    """The reference as a model would give it: after some thinking, in a box, or in a tag where braces forbid a box."""
    return Case(name="gold", response=f"{THINK_OPEN}Let me see.{THINK_CLOSE}{_marked(task.answer)}")


def rewritings(task: Task) -> list[Case]:
    """Other ways to write the reference that must be right too; those of the task's verifier, each once."""
    gold = task.answer.strip()
    special = _REWRITINGS.get(base_name(task.verifier), _no_rewriting)(task)
    cases = {"no thinking": _marked(gold), "spaces": f"\n  {_marked(f' {gold} ')}  \n"}
    if base_name(task.verifier) != "exact":
        cases["tag"] = f"<answer>{gold}</answer>"
    if _is_one_line(gold):
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
        "only thinking": f"{THINK_OPEN}{_marked(gold)}{THINK_CLOSE}",
        "thinking left open": f"{THINK_OPEN}It is {_marked(gold)}",
    }
    if others:
        other = others[0]
        cases["hedge"] = _marked(f"{gold} or {other}")
        cases["hedge, the other way round"] = _marked(f"{other} or {gold}")
        cases["hedged sentence"] = f"The answer is {gold} or {other}."
        cases["very long"] = _marked(f"{gold} {other} " * (_LONG // (len(gold) + len(other) + 2) + 1))
        cases["flood of lines"] = f"{gold}\n{other}\n" * min(2_000, _LONG // (len(gold) + len(other) + 2) + 1)
    if len(others) > 2:
        cases["list of answers"] = _marked(", ".join([*others[:2], gold, others[2]]))
    cases |= _CHEATS.get(base_name(task.verifier), _no_rewriting)(task)
    return [Case(name=name, response=text) for name, text in cases.items()]


def _marked(gold: str) -> str:
    depths = list(itertools.accumulate((c == "{") - (c == "}") for c in re.sub(r"\\.", "", gold)))
    safe = not depths or (min(depths) >= 0 and depths[-1] == 0)
    return rf"\boxed{{{gold}}}" if safe else f"<answer>{gold}</answer>"


def _is_one_line(gold: str) -> bool:
    return "\n" not in gold and len(gold) <= 200 and "answer" not in gold.lower() and "boxed" not in gold


def _no_rewriting(_: Task) -> dict[str, str]:
    return {}


def _math(task: Task) -> dict[str, str]:
    gold = task.answer.strip()
    cases = {"dollars": f"${gold}$"} if "$" not in gold and _is_one_line(gold) else {}
    fraction = _FRACTION.fullmatch(gold)
    if fraction is not None:
        sign, top, bottom = fraction.groups()
        cases["LaTeX fraction"] = rf"\boxed{{{sign}\frac{{{top}}}{{{bottom}}}}}"
        cases["display fraction"] = rf"\boxed{{{sign}\dfrac{{{top}}}{{{bottom}}}}}"
    return {**cases, **_thousands(gold)}


def _thousands(gold: str) -> dict[str, str]:
    whole = re.fullmatch(r"-?[1-9]\d{3,14}", gold)
    return {"thousands separators": rf"\boxed{{{int(gold):,}}}"} if whole is not None else {}


def _choice(task: Task) -> dict[str, str]:
    index = reference_index(task.answer, task.choices)
    if index is None:
        return {}
    letter = _LETTERS[index]
    cases = {
        "letter": letter,
        "lower case": rf"\boxed{{{letter.lower()}}}",
        "parentheses": f"({letter})",
        "stop": f"{letter}.",
        "letter in a sentence": f"The answer is {letter}.",
    }
    if index < len(task.choices):
        text = task.choices[index]
        cases["letter and text"] = f"{letter}. {text}"
        if task.choices.count(text) == 1 and text.strip().upper() not in _LETTERS and _is_one_line(text):
            cases["option text"] = _marked(text)
    return cases


def _text(task: Task) -> dict[str, str]:
    gold = task.answer.strip()
    return {
        "upper case": _marked(gold.upper()),
        "lower case": _marked(gold.lower()),
        "LaTeX text": rf"\boxed{{\text{{{gold}}}}}" if _marked(gold).startswith("\\") else _marked(gold),
    }


def _count(task: Task) -> dict[str, str]:
    gold = task.answer.strip()
    word = {"in words": _WORDS[int(gold)]} if gold.isdecimal() and len(gold) < 3 and int(gold) < len(_WORDS) else {}
    return {**_thousands(gold), **word}


def _json(task: Task) -> dict[str, str]:
    try:
        read_json(task.answer)
        value = json.loads(task.answer)
    except (NotJson, ValueError):
        return {}
    cases = {"code fence": f"Here it is:\n```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```"}
    if isinstance(value, dict):
        cases["other order of keys"] = json.dumps(dict(reversed(value.items())))
    return cases


def _letters(task: Task) -> dict[str, str]:
    letters = _LETTERS[: len(task.choices) or 4]
    return {
        "all letters": ", ".join(letters),
        "all letters in a box": rf"\boxed{{{', '.join(letters)}}}",
        "letters joined by or": f"The answer is {' or '.join(letters)}.",
    }


def _both(_: Task) -> dict[str, str]:
    return {"yes and no": "Yes and no.", "yes/no": r"\boxed{yes/no}", "yes, then no": "Yes. No."}


def _numbers(_: Task) -> dict[str, str]:
    return {"all numbers": _marked(" ".join(str(n) for n in range(101))), "range": "between 0 and 1000000000"}


_REWRITINGS: Mapping[str, Callable[[Task], dict[str, str]]] = {
    "math": _math,
    "choice": _choice,
    "text": _text,
    "yes_no": _text,
    "numeric": lambda task: _thousands(task.answer.strip()),
    "count": _count,
    "json": _json,
}
_CHEATS: Mapping[str, Callable[[Task], dict[str, str]]] = {
    "choice": _letters,
    "yes_no": _both,
    "text": _both,
    "numeric": _numbers,
    "count": _numbers,
    "math": _numbers,
}
