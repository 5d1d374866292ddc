"""Accuracy over several completions per task: pass@k, maj@k, and bootstrap confidence intervals over tasks."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rewards.types import Verdict, VerdictKind

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over tasks with its confidence interval; NaN if no task has a value."""

    value: float
    low: float
    high: float
    tasks: int  # that have a value

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The probability that at least one of `k` completions, drawn without replacement from `n`, is correct.

    `1 - C(n - c, k) / C(n, k)`, the unbiased estimator of Chen et al. 2021 (arXiv:2107.03374), section 2.1.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k = {k}: must be from 1 to n = {n}")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority(verdicts: Sequence[Verdict]) -> float:
    """1 if the most frequent answer of a task's completions is correct, else 0 (self-consistency, arXiv:2203.11171).

    Answers are what the verifier extracted. All correct completions vote together, as the verifier found them equal to
    the reference; wrong completions vote together if their text is equal. Completions without an answer do not vote.
    In a tie between the correct answer and `m` wrong ones, the value is `1 / (m + 1)`, as if it were drawn among them.
    """
    correct = sum(verdict.kind is VerdictKind.CORRECT for verdict in verdicts)
    wrong: dict[str, int] = defaultdict(int)
    for i, verdict in enumerate(verdicts):
        if verdict.kind is VerdictKind.WRONG:
            wrong[f"alone {i}" if verdict.extracted is None else f"text {verdict.extracted.strip()}"] += 1
    most = max([correct, *wrong.values()])
    ties = sum(votes == most for votes in wrong.values())
    return 1.0 / (ties + 1) if correct == most > 0 else 0.0


def bootstrap(values: Sequence[float], *, seed: int) -> Estimate:
    """The mean of one value per task, with the 95 % percentile interval over resampled tasks. NaNs are left out.

    The same values and seed give the same interval. It holds the mean. Where all tasks are wrong, or all are right,
    resampling finds nothing else, so that the interval is Wilson's.
    """
    known = np.array([value for value in values if not math.isnan(value)])
    if not len(known):
        return Estimate(value=math.nan, low=math.nan, high=math.nan, tasks=0)
    rng, mean = np.random.default_rng(seed), float(known.mean())
    if mean in (0.0, 1.0):
        low, high = wilson(mean, len(known))
        return Estimate(value=mean, low=min(low, mean), high=max(high, mean), tasks=len(known))
    means = [known[rng.integers(len(known), size=len(known))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(value=mean, low=min(float(low), mean), high=max(float(high), mean), tasks=len(known))


def wilson(share: float, count: float, *, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent trials (Wilson 1927); NaN where nothing is known."""
    if not count or math.isnan(share):
        return math.nan, math.nan
    middle = share + z * z / (2 * count)
    reach = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return max(0.0, (middle - reach) / whole), min(1.0, (middle + reach) / whole)


def estimates(
    greedy: Sequence[Sequence[Verdict]], sampled: Sequence[Sequence[Verdict]], *, seed: int
) -> dict[str, Estimate]:
    """`greedy`, `pass@1`, and for k = 2, 4, 8, ... up to the number of samples `pass@k` and `maj@k`, over the tasks.

    Both hold the verdicts of each task. Failed verdicts leave their task; `pass@k` and `maj@k` are over the tasks that
    have k verdicts left, and `maj@k` takes the first k.
    """
    found = {"greedy": bootstrap([_share(own) for own in _judged(greedy)], seed=seed)}
    tasks = _judged(sampled)
    most = max(map(len, tasks), default=0)
    for k in _ks(most):
        enough = [own for own in tasks if len(own) >= k]
        counts = [(len(own), sum(verdict.kind is VerdictKind.CORRECT for verdict in own)) for own in enough]
        found[f"pass@{k}"] = bootstrap([pass_at_k(n, correct, k) for n, correct in counts], seed=seed)
        if k > 1:
            found[f"maj@{k}"] = bootstrap([majority(own[:k]) for own in enough], seed=seed)
    return found


def _judged(tasks: Sequence[Sequence[Verdict]]) -> list[list[Verdict]]:
    return [[verdict for verdict in own if verdict.is_reward] for own in tasks]


def _share(verdicts: Sequence[Verdict]) -> float:
    correct = [verdict.kind is VerdictKind.CORRECT for verdict in verdicts]
    return float(np.mean(correct)) if correct else math.nan


def _ks(most: int) -> list[int]:
    """1, 2, 4, 8, ... and `most` itself."""
    powers = [2**i for i in range(most.bit_length())] if most else []
    return sorted({*powers, *([most] if most else [])})
