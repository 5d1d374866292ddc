"""References that are lists of accepted answers, as JSON: `["cat", "kitty"]`. Any of them is right."""

from __future__ import annotations

import json
from dataclasses import replace

from rewards.types import Task, Verdict, VerdictKind, Verifier

MOST = 10  # accepted answers of one task
_WORSE = (VerdictKind.WRONG, VerdictKind.NO_ANSWER, VerdictKind.TIMEOUT, VerdictKind.CRASH, VerdictKind.BAD_REFERENCE)


def accepted_answers(reference: str) -> list[str] | None:
    """The answers of a reference that is a JSON list of 1 to `MOST` texts; None for every other reference."""
    text = reference.strip()
    if not (text.startswith('["') and text.endswith('"]')):
        return None
    try:
        answers = json.loads(text)
    except ValueError:
        return None
    found = [answer for answer in answers if isinstance(answer, str) and answer.strip()]
    return found if 0 < len(found) == len(answers) <= MOST else None


class AnyAccepted:
    """Calls another verifier with each accepted answer until one is right."""

    def __init__(self, verifier: Verifier) -> None:
        self._verifier = verifier
        self.blocking = verifier.blocking

    def __call__(self, response: str, reference: str, *, task: Task) -> Verdict:
        """The first correct verdict, else that of the best score; a bad reference only where all of them are."""
        answers = accepted_answers(reference)
        if answers is None:
            return self._verifier(response, reference, task=task)
        verdicts = []
        for answer in answers:
            verdict = self._verifier(response, answer, task=replace(task, answer=answer))
            if verdict.kind is VerdictKind.CORRECT:
                return verdict
            verdicts.append(verdict)
        return min(verdicts, key=lambda v: (-v.score, _WORSE.index(v.kind)))
