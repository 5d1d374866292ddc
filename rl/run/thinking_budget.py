"""Accuracy against thinking budget: answers whose think block is open at N tokens are made to answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from configs.rl import SamplingConfig
from rewards.extraction import split_thinking
from rewards.scorer import Scorer
from rollouts.sources.requests import Decode, Generate
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
    generate: Generate,
    decode: Decode,
    scorer: Scorer,
    answers: Sequence[ScoredRollout],
    *,
    budgets: Sequence[int],
    close_ids: Sequence[int],
    sampling: SamplingConfig,
) -> list[BudgetResult]:
    """One row a budget, smallest first, from `answers`, the greedy ones without a budget.

    An answer that thinks less than the budget is the same with it, so only the others are written on, from their first
    `budget` tokens and the close mark.
    """
    greedy = replace(sampling, temperature=0.0)
    return [
        _with_budget(generate, decode, scorer, answers, budget=budget, close_ids=close_ids, sampling=greedy)
        for budget in sorted(set(budgets))
    ]


def _with_budget(
    generate: Generate,
    decode: Decode,
    scorer: Scorer,
    answers: Sequence[ScoredRollout],
    *,
    budget: int,
    close_ids: Sequence[int],
    sampling: SamplingConfig,
) -> BudgetResult:
    cut = {
        index: close_thinking(answer.rollout.completion, at=budget, close_ids=close_ids)
        for index, answer in enumerate(answers)
        if _thinks_beyond(answer.rollout.completion, budget, decode)
    }
    requests = [Request(prompt=answers[i].rollout.prompt, n=1, seed=0, written=(start,)) for i, start in cut.items()]
    groups = generate(requests, sampling) if requests else []
    scores = scorer.score([decode(c.token_ids) for (c,) in groups], [r.prompt.task for r in requests])
    verdicts = [a.score.verdict for a in answers]
    lengths = [len(a.rollout.completion.token_ids) for a in answers]
    for index, (completion,), score in zip(cut, groups, scores, strict=True):
        verdicts[index], lengths[index] = score.verdict, len(completion.token_ids)
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
