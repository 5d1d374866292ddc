"""TODO."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from configs.rl import SamplingConfig
from rewards.extraction import split_thinking
from rewards.scorer import Scorer
from rewards.types import Verdict, VerdictKind
from rollouts.sources.requests import Decode, Generate, make_requests
from rollouts.types import Completion, Prompt, Request, Rollout, ScoredRollout


def sample_and_score(
    generate: Generate,
    decode: Decode,
    scorer: Scorer,
    prompts: Sequence[Prompt],
    *,
    sampling: SamplingConfig,
    n: int,
    seed: int,
) -> list[list[ScoredRollout]]:
    """`n` scored rollouts of each prompt, in order; none for a task in quarantine.

    Sample i of prompt j depends on (seed, j, i) alone.
    """
    requests = make_requests(prompts, n=n, seed=seed)
    return score_completions(decode, scorer, requests, generate(requests, sampling))


def score_completions(
    decode: Decode, scorer: Scorer, requests: Sequence[Request], answers: Sequence[Sequence[Completion]]
) -> list[list[ScoredRollout]]:
    """The answers of each request as scored rollouts, in order."""
    groups = [
        [Rollout(prompt=r.prompt, index=i, completion=c, text=decode(c.token_ids)) for i, c in enumerate(group)]
        for r, group in zip(requests, answers, strict=True)
    ]
    rollouts = [r for group in groups for r in group]
    scores = iter(scorer.score([r.text for r in rollouts], [r.prompt.task for r in rollouts]))
    return [[ScoredRollout(rollout=r, score=next(scores)) for r in group] for group in groups]


def thinks(text: str) -> bool:
    """True if the response holds a closed, non-empty think block."""
    thinking = split_thinking(text)
    return thinking.closed and bool((thinking.thought or "").strip())


def accuracy(verdicts: Iterable[Verdict]) -> float:
    """Share of correct answers among those with a verdict: a verifier that failed says nothing about the answer."""
    judged = [verdict.kind is VerdictKind.CORRECT for verdict in verdicts if verdict.is_reward]
    return float(np.mean(judged)) if judged else float("nan")
