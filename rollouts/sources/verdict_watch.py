"""Stops a run whose verifiers judge nothing: it would train on nothing, and its figures would mean nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from configs.errors import UserError
from rollouts.types import ScoredRollout

ENOUGH = 16  # completions without a single verdict that end a stage


class VerdictWatch:
    """Counts failures of reward terms until the first completion that has a reward."""

    def __init__(self) -> None:
        self._failures: Counter[str] = Counter()
        self._completions = 0
        self._judged = False

    def observe(self, rollouts: Iterable[ScoredRollout], *, where: str, last: bool = False) -> None:
        """Take in scored rollouts. Raises UserError where none has a reward after `ENOUGH`, or after the `last`."""
        for rollout in rollouts:
            score = rollout.score
            self._judged = self._judged or score.reward is not None
            self._completions += 1
            for name, verdict in score.failures.items() or [("verifier", score.verdict)]:
                detail = f" ({verdict.detail[:120]})" if verdict.detail else ""
                self._failures[f"{name}: {verdict.kind}{detail}"] += 1
        if not self._judged and self._completions and (last or self._completions >= ENOUGH):
            raise UserError(self._text(where))

    def _text(self, where: str) -> str:
        reasons = "\n".join(f"  {count} x {reason}" for reason, count in self._failures.most_common(5))
        return (
            f"{where}: not one of {self._completions} completions could be judged:\n{reasons}\n"
            "nothing can be trained or measured like this; look at the references with `thinkvl audit RECIPE`, and try "
            "a plug-in with `thinkvl check-reward`"
        )


def require_verdicts(rollouts: Iterable[ScoredRollout], *, where: str) -> None:
    """Raise UserError where there are completions, but every one's verifier failed."""
    VerdictWatch().observe(rollouts, where=where, last=True)
