"""What an audit finds in the data itself: duplicates, leaks into held-out tasks, ambiguous options."""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from rewards.types import Task
from rewards.verifiers.choice import reference_index

CODES = {
    "bad-row": "a row that cannot become a task, so a run leaves it out",
    "bad-image": "an image that is missing, broken or cut short",
    "bad-gold": "a reference that its verifier cannot read",
    "gold-rejected": "a reference that its own verifier does not accept",
    "rewriting-rejected": "a harmless rewriting of the reference that is not accepted",
    "cheat-accepted": "an answer that must earn nothing and does",
    "verifier-failed": "a verifier that was slow, timed out or crashed",
    "ambiguous-choices": "two options that are the same answer",
    "gold-not-an-option": "a reference that is none of the options",
    "duplicate": "the same question about the same images, with the same reference",
    "conflict": "the same question about the same images, with another reference",
    "leak": "a held-out or validation task that is also a training task",
}
"""Every kind of finding, most serious causes first; `--ignore` takes these names."""

_HAS_VALUE = re.compile(r"\d|\\")
_MAX_PAIRS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, and with which task."""

    code: str
    message: str
    source: str = ""
    task_id: str = ""
    question: str = ""
    answer: str = ""
    verifier: str = ""
    response: str = ""  # what was tried, cut short
    verdict: str = ""

    def on(self, task: Task) -> Finding:
        """The same finding on `task`."""
        return replace(
            self,
            source=task.source,
            task_id=task.id,
            question=task.question[:500],
            answer=task.answer[:500],
            verifier=task.verifier,
        )


def fingerprint(task: Task) -> str:
    """Equal for tasks with the same question and images, up to case, spaces and punctuation at the ends."""
    text = " ".join(unicodedata.normalize("NFKC", task.question).casefold().split()).strip(" .,;:!?\"'")
    digest = hashlib.sha256(text.encode("utf-8", "replace"))
    for image in task.images:
        digest.update(hashlib.sha256(image).digest())
    return digest.hexdigest()


@dataclass(slots=True)
class Duplicates:
    """Remembers every question; a finding where one comes again, or where a held-out one was in training."""

    _seen: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)  # (role, print) -> (id, answer)

    def check(self, task: Task, role: str) -> list[Finding]:
        """The findings on `task`, which plays `role`: train, validation, held_out, or "" outside a recipe."""
        mark = fingerprint(task)
        found = []
        first = self._seen.get((role, mark))
        if first is None:
            self._seen[role, mark] = (task.id, task.answer)
        elif first[0] != task.id:
            same = first[1].strip().casefold() == task.answer.strip().casefold()
            code, with_what = ("duplicate", "the same") if same else ("conflict", f"{first[1][:80]!r} as its")
            found.append(Finding(code=code, message=f"question of {first[0]}, with {with_what} reference").on(task))
        train = self._seen.get(("train", mark)) if role not in ("", "train") else None
        if train is not None:
            found.append(Finding(code="leak", message=f"this {role} task is the training task {train[0]}").on(task))
        return found


def option_findings(task: Task, equal: Callable[[str, str, Task], bool]) -> list[Finding]:
    """Options that are the same answer, as text or by value, and a reference that is none of them."""
    if not task.choices:
        return []
    found = []
    if reference_index(task.answer, task.choices) is None:
        found.append(Finding(code="gold-not-an-option", message=f"the options are {task.choices!r}"[:500]).on(task))
    names = dict(zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", task.choices, strict=False))
    pairs = itertools.islice(itertools.combinations(names.items(), 2), _MAX_PAIRS)
    for (left, a), (right, b) in pairs:
        by_value = bool(_HAS_VALUE.search(a) and _HAS_VALUE.search(b))
        if _bare(a) == _bare(b) or (by_value and equal(a, b, task)):
            message = f"options {left} and {right} are the same: {a[:80]!r} and {b[:80]!r}"
            found.append(Finding(code="ambiguous-choices", message=message).on(task))
    return found


def _bare(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(" .")
