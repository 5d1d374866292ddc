"""Accuracy against thinking budget: a think block that is still open after N tokens is closed, then continued."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.rl import SamplingConfig
from rewards.extraction import split_thinking
from rollouts.sources.rollout_pipeline import Decode, RolloutPipeline
from rollouts.sources.scoring import accuracy
from rollouts.sources.thinking import close_thinking
from rollouts.types import Completion, Request, ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetResult:
    """Greedy answers with at most `budget` tokens of thinking."""

    budget: int
    greedy_accuracy: float
    forced_share: float  # answers whose think block was closed for them
    mean_tokens: float  # of the whole answer, the inserted mark included


def evaluate_budgets(
    pipeline: RolloutPipeline,
    answers: Sequence[ScoredRollout],
    *,
    budgets: Sequence[int],
    close_ids: Sequence[int],
    sampling: SamplingConfig,
) -> list[BudgetResult]:
    """Evaluate each budget, smallest first, starting from `answers`, the greedy completions without a budget.

    A completion that thinks less than the budget does not change, so only the others are continued, from their first
    `budget` tokens and the close mark.
    """
    greedy = replace(sampling, temperature=0.0)
    return [
        _with_budget(pipeline, answers, budget=budget, close_ids=close_ids, sampling=greedy)
        for budget in sorted(set(budgets))
    ]


def _with_budget(
    pipeline: RolloutPipeline,
    answers: Sequence[ScoredRollout],
    *,
    budget: int,
    close_ids: Sequence[int],
    sampling: SamplingConfig,
) -> BudgetResult:
    cut = {
        index: close_thinking(answer.rollout.completion, at=budget, close_ids=close_ids)
        for index, answer in enumerate(answers)
        if _thinks_beyond(answer.rollout.completion, budget, pipeline.decode)
    }
    requests = [Request(prompt=answers[i].rollout.prompt, n=1, seed=0, prefixes=(start,)) for i, start in cut.items()]
    groups = pipeline.generate(requests, sampling) if requests else []
    scored = pipeline.score([r.prompt for r in requests], groups)
    verdicts = [a.score.verdict for a in answers]
    lengths = [len(a.rollout.completion.token_ids) for a in answers]
    for index, (answer,) in zip(cut, scored, strict=True):
        verdicts[index], lengths[index] = answer.score.verdict, len(answer.rollout.completion.token_ids)
    return BudgetResult(
        budget=budget,
        greedy_accuracy=accuracy(verdicts),
        forced_share=len(cut) / len(answers),
        mean_tokens=float(np.mean(lengths)),
    )


def _thinks_beyond(completion: Completion, budget: int, decode: Decode) -> bool:
    """True if there is a token after the budget, and a think block is open there."""
    if len(completion.token_ids) <= budget:
        return False
    thinking = split_thinking(decode(completion.token_ids[:budget]))
    return thinking.thought is not None and not thinking.closed
