"""Which sampled tokens are not trained on, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rl.types import Sample
from rollouts.types import Completion, ScoredRollout

CAUSES = ("filtered", "truncated", "aborted", "stale")


def discarded_metrics(
    scored: Sequence[Sequence[ScoredRollout]], samples: Sequence[Sample], dropped: Mapping[str, int]
) -> dict[str, float]:
    """Shares of the step's sampled tokens by cause; `dropped` are tokens that never reached the step. See
    docs/metrics.md.
    """
    trained = {sample.id for sample in samples}
    trained_groups = {sample.prompt.id for sample in samples}
    tokens: Counter[str] = Counter(dropped)
    for group in scored:
        for rollout in (member.rollout for member in group):
            completion = rollout.completion
            in_trained_group = rollout.prompt.id in trained_groups
            cause = "trained" if rollout.id in trained else _cause(completion, in_trained_group=in_trained_group)
            tokens[cause] += len(completion.token_ids)
    total = tokens.total()
    return {f"discarded/{cause}": tokens[cause] / total for cause in CAUSES} if total else {}


def _cause(completion: Completion, *, in_trained_group: bool) -> str:
    """Why a completion is not trained on: it is unfinished, it was cut off, or its group has no signal."""
    if completion.finish_reason == "abort":
        return "aborted"
    return "truncated" if in_trained_group and completion.finish_reason == "length" else "filtered"
