"""Does a verifier do right by the tasks it will judge? Each reference, its harmless rewritings, and answers that cheat.

Nothing here needs a GPU, a model, torch or Ray. `Auditor` is fed one task after the other and keeps no images.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rewards.audit.cases import Case, cheats, gold_case, rewritings
from rewards.audit.data import Finding, option_findings
from rewards.types import Task, Verdict, VerdictKind
from rewards.verifiers.builtin import JUDGE, is_built_in
from rewards.verifiers.options import base_name

Judge = Callable[[Sequence[str], Task], Sequence[Verdict]]

SLOW = 5.0  # seconds: longer than this is a finding
_EQUAL_BY_VALUE = frozenset({"math", "text", "choice", "exact", "count", "yes_no", "json"})  # without tolerance
_OTHERS = 3  # references of other rows that are tried on a task


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """A case and what the verifier said."""

    case: Case
    verdict: Verdict


@dataclass(slots=True)
class Auditor:
    """Tries every case on every task; what depends on the reference alone is tried once for each reference."""

    judge: Judge
    verifications: int = 0
    not_tried: Counter[str] = field(default_factory=Counter)  # verifier -> tasks
    _known: dict[tuple[object, ...], tuple[Finding, ...]] = field(default_factory=dict)

    def check(self, task: Task, golds: Sequence[str]) -> list[Finding]:
        """The findings on one task; `golds` are references of other tasks of the same verifier."""
        if base_name(task.verifier) == JUDGE:  # it costs money
            self.not_tried[task.verifier] += 1
            return []
        key = (task.verifier, task.answer, task.choices)
        if key not in self._known:
            self._known[key] = tuple(self._reference_findings(task, golds))
        found = [finding.on(task) for finding in self._known[key]]
        if not any(finding.code in ("bad-gold", "gold-rejected", "verifier-failed") for finding in found):
            found += self._copied(task)
        return found

    def tried(self, task: Task, golds: Sequence[str]) -> list[Tried]:
        """Every case on one task with its verdict, to show."""
        others = [gold for gold in golds if gold.strip() != task.answer.strip()][:3]
        cases = [gold_case(task), *rewritings(task), *cheats(task, others)]
        return self._try(cases, task)

    def _reference_findings(self, task: Task, golds: Sequence[str]) -> list[Finding]:
        [gold] = self._try([gold_case(task)], task)
        if gold.verdict.kind is VerdictKind.BAD_REFERENCE:
            return [_finding("bad-gold", f"the reference cannot be read: {gold.verdict.detail}", task, gold)]
        found = self._failures([gold], task)
        if gold.verdict.kind is not VerdictKind.CORRECT and not found:
            return [_finding("gold-rejected", "the reference itself is not accepted", task, gold)]
        if is_built_in(task.verifier):  # a plug-in decides alone what it takes
            tried = self._try(rewritings(task), task)
            found += self._failures(tried, task)
            found += [
                _finding("rewriting-rejected", f"the reference is not accepted when written so: {t.case.name}", task, t)
                for t in tried
                if t.verdict.is_reward and t.verdict.kind is not VerdictKind.CORRECT
            ]
            found += option_findings(task, self._equal)
        return found + self._cheating(task, golds)

    def _cheating(self, task: Task, golds: Sequence[str]) -> list[Finding]:
        found, accepted, rejected, all_tried = [], [], [], []
        for other in [gold for gold in dict.fromkeys(golds) if gold.strip() != task.answer.strip()][:_OTHERS]:
            [tried] = self._try([Case(name="reference of another row", response=rf"\boxed{{{other}}}")], task)
            all_tried.append(tried)
            right = tried.verdict.kind is VerdictKind.CORRECT
            if right and self._equal(other, task.answer, task):
                continue
            (accepted if right else rejected).append(other)
            if right:
                message = f"accepted: the reference of another row, {other!r}"
                found.append(_finding("cheat-accepted", message, task, tried))
        tried = self._try(cheats(task, rejected or accepted), task)
        found += [_finding("cheat-accepted", f"accepted: {t.case.name}", task, t) for t in tried if t.verdict.score > 0]
        all_tried += tried
        unread = next((t for t in all_tried if t.verdict.kind is VerdictKind.BAD_REFERENCE), None)
        if unread is not None:  # repeating it letter by letter was right all the same
            found.append(_finding("bad-gold", "the reference cannot be read: only a copy of it is right", task, unread))
        return found + [finding for finding in self._failures(all_tried, task) if finding.message.startswith("slow")]

    def _copied(self, task: Task) -> list[Finding]:
        if not task.question.strip():
            return []
        [tried] = self._try([Case(name="question copied", response=task.question)], task)
        return (
            [_finding("cheat-accepted", "accepted: the question, copied", task, tried)] if tried.verdict.score else []
        )

    def _equal(self, left: str, right: str, task: Task) -> bool:
        """True where each is right when the other is the reference, and the verifier has no tolerance."""
        if task.verifier not in _EQUAL_BY_VALUE:
            return False
        name = "math" if task.verifier == "choice" else task.verifier
        pairs = ((left, right), (right, left))
        swapped = [Task(id=task.id, source=task.source, question="", answer=b, verifier=name) for _, b in pairs]
        cases = [Case(name="other", response=rf"\boxed{{{a}}}") for a, _ in pairs]
        found = [self._try([case], other)[0].verdict for case, other in zip(cases, swapped, strict=True)]
        return all(verdict.kind is VerdictKind.CORRECT for verdict in found)

    def _failures(self, tried: Sequence[Tried], task: Task) -> list[Finding]:
        found = []
        for t in tried:
            if t.verdict.seconds > SLOW:
                found.append(_finding("verifier-failed", f"slow: {t.verdict.seconds:.1f} s for {t.case.name}", task, t))
            elif t.verdict.kind in (VerdictKind.TIMEOUT, VerdictKind.CRASH):
                message = f"{t.verdict.kind} on {t.case.name}: {t.verdict.detail}"
                found.append(_finding("verifier-failed", message, task, t))
        return found

    def _try(self, cases: Sequence[Case], task: Task) -> list[Tried]:
        self.verifications += len(cases)
        verdicts = self.judge([case.response for case in cases], task)
        return [Tried(case=case, verdict=verdict) for case, verdict in zip(cases, verdicts, strict=True)]


def _finding(code: str, message: str, task: Task, tried: Tried) -> Finding:
    verdict = tried.verdict
    return Finding(
        code=code,
        message=message,
        response=tried.case.response[:500],
        verdict=f"{verdict.kind}, {verdict.rule}",
    ).on(task)
