"""Stops a run whose verifiers judge nothing: it would train on nothing, and its figures would mean nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from configs.errors import UserError
from configs.text import counted
from rewards.audit.cases import gold_case
from rewards.scorer import Scorer
from rewards.types import Score, Task
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
        for score in (rollout.score for rollout in rollouts):
            self._judged = self._judged or score.reward is not None
            self._completions += 1
            self._failures.update(failure_texts(score))
        if not self._judged and self._completions and (last or self._completions >= ENOUGH):
            raise UserError(_refusal(where, counted(self._completions, "completion"), self._failures))


def failure_texts(score: Score) -> list[str]:
    """Each reward term that failed, and how. Example: `verifier: bad_reference (no number)`."""
    failed = dict(score.failures)
    if not score.verdict.is_reward:
        failed = {"verifier": score.verdict, **failed}
    details = {name: f" ({verdict.detail[:120]})" if verdict.detail else "" for name, verdict in failed.items()}
    return [f"{name}: {verdict.kind}{details[name]}" for name, verdict in failed.items()]


def require_verdicts(rollouts: Iterable[ScoredRollout], *, where: str) -> None:
    """Raise UserError where there are completions, but every one's verifier failed."""
    VerdictWatch().observe(rollouts, where=where, last=True)


def try_rewards(scorer: Scorer, tasks: Sequence[Task], *, where: str) -> list[str]:
    """Score the reference answer of the first tasks, before any time is spent; what failed, as lines to print.

    Beside it stands a response without an answer: a reward may need a group. Raises UserError where no response has a
    reward.
    """
    tried = tasks[:ENOUGH]
    responses = [text for task in tried for text in (gold_case(task).response, "I do not know.")]
    scores = scorer.score(responses, [task for task in tried for _ in range(2)])
    failures = Counter(text for score in scores[::2] for text in failure_texts(score))
    lost = sum(score.reward is None for score in scores[::2])
    if scores and all(score.reward is None for score in scores):
        raise UserError(_refusal(where, counted(lost, "reference answer"), failures))
    if not lost:
        return []
    reasons = ", ".join(f"{count} x {reason}" for reason, count in failures.most_common(5))
    return [f"{where}: {lost} of {counted(len(tried), 'reference answer')} cannot be judged: {reasons}"]


def _refusal(where: str, what: str, failures: Counter[str]) -> str:
    reasons = "\n".join(f"  {count} x {reason}" for reason, count in failures.most_common(5))
    return (
        f"{where}: not one of {what} could be judged:\n{reasons}\n"
        "nothing can be trained or measured like this; look at the references with `thinkvl audit RECIPE`, and try "
        "a plug-in with `thinkvl check-reward`"
    )
