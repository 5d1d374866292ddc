"""Where sampled tokens went that nothing was learnt from, and how old those were that something was learnt from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rl.types import Sample
from rollouts.types import Completion, ScoredRollout

CAUSES = ("filtered", "truncated", "aborted", "stale")


def waste_metrics(
    scored: Sequence[Sequence[ScoredRollout]], samples: Sequence[Sample], dropped: Mapping[str, int]
) -> dict[str, float]:
    """Shares of the step's sampled tokens by cause; `dropped` are tokens that never reached the step. See
    docs/metrics.md.
    """
    learnt = {id(sample.token_ids) for sample in samples}
    trained_groups = {id(sample.prompt) for sample in samples}
    tokens: Counter[str] = Counter(dropped)
    for group in scored:
        for rollout in (member.rollout for member in group):
            completion = rollout.completion
            if id(completion.token_ids) in learnt:
                tokens["learnt"] += len(completion.token_ids)
            else:
                tokens[_cause(completion, trained_groups=id(rollout.prompt) in trained_groups)] += len(
                    completion.token_ids
                )
    total = tokens.total()
    return {f"wasted/{cause}": tokens[cause] / total for cause in CAUSES} if total else {}


def _cause(completion: Completion, *, trained_groups: bool) -> str:
    """Why an answer was left out: it is unfinished, it was cut off in a group that teaches, or its group does not."""
    if completion.finish_reason == "abort":
        return "aborted"
    return "truncated" if trained_groups and completion.finish_reason == "length" else "filtered"
