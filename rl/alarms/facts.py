"""What a rule sees of a step: its rollouts with their places in the log, and the numbers that are kept of it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rewards.types import VerdictKind
from rollouts.types import ScoredRollout

# Metrics that rules read; docs/metrics.md says what they are. Those by source are kept, too.
KEPT_METRICS = (
    *("rollouts", "reward", "accuracy", "entropy", "tokens_mean", "truncated_share", "signal_share"),
    *("verifier_failures", "thinking_share", "reward/format", "approx_kl", "correction_outside"),
    *("loss", "grad_norm", "skipped_updates", "discarded/stale", "discarded/aborted", "masked_share"),
    *("staleness_mean", "clip_fraction", "workers/hangs", "workers/quarantined"),
)


@dataclass(frozen=True, slots=True, order=True)
class RolloutPlace:
    """Where a rollout is in the log and in the book."""

    step: int
    group: int
    sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRollout:
    """A rollout of the step, with its place."""

    place: RolloutPlace
    scored: ScoredRollout

    @property
    def reward(self) -> float | None:
        """The scorer's, before it is shaped; None where a verifier failed."""
        return self.scored.score.reward

    @property
    def correct(self) -> bool:
        """Whether the task's own verifier says so, whatever the reward is made of."""
        return self.scored.score.verdict.kind is VerdictKind.CORRECT

    @property
    def wrong(self) -> bool:
        """Judged by the task's own verifier, and not correct."""
        return self.scored.score.verdict.is_reward and not self.correct

    @property
    def source(self) -> str:
        """The data source of its task."""
        return self.scored.rollout.prompt.task.source

    @property
    def answer(self) -> str | None:
        """The extracted answer in one spelling."""
        found = self.scored.score.verdict.extracted
        return None if found is None else _spelling(found)

    @property
    def tokens(self) -> int:
        """Length of the completion."""
        return len(self.scored.rollout.completion.token_ids)

    @property
    def oldest_version(self) -> int:
        """The first policy version that wrote a token of it."""
        return min((part.version for part in self.scored.rollout.completion.segments), default=0)


def seen_rollouts(step: int, scored: Sequence[Sequence[ScoredRollout]]) -> tuple[SeenRollout, ...]:
    """The rollouts of a step, with the places that `RolloutLog` gives them."""
    return tuple(
        SeenRollout(place=RolloutPlace(step, group, sample), scored=rollout)
        for group, rollouts in enumerate(scored)
        for sample, rollout in enumerate(rollouts)
    )


def step_numbers(rollouts: Sequence[SeenRollout], metrics: Mapping[str, float]) -> dict[str, float]:
    """The numbers of a step that are kept: metrics, and sums over its rollouts.

    Sums rather than shares are kept, so that a window of steps of unlike sizes weighs every rollout the same.
    """
    numbers = {name: float(metrics[name]) for name in KEPT_METRICS if name in metrics}
    numbers |= {name: value for name, value in metrics.items() if name.startswith("accuracy/")}
    judged = judged_rollouts(rollouts)
    right, wrong = ([r for r in judged if r.correct is side] for side in (True, False))
    numbers |= {"right": float(len(right)), "right_reward": math.fsum(r.reward or 0.0 for r in right)}
    numbers |= {"wrong": float(len(wrong)), "wrong_reward": math.fsum(r.reward or 0.0 for r in wrong)}
    if (favourite := favourite_answer(judged)) is not None:
        numbers["favourite_excess"] = favourite[1]
    return {**numbers, "groups": float(len({r.place.group for r in judged})), **_by_source(rollouts)}


def judged_rollouts(rollouts: Iterable[SeenRollout]) -> list[SeenRollout]:
    """Those that have both a reward and a verdict."""
    return [r for r in rollouts if r.scored.score.verdict.is_reward and r.reward is not None]


def rewarded_numbers(rollouts: Sequence[SeenRollout], half_reward: float | None) -> dict[str, float]:
    """How many rollouts are rewarded, and how many of these the task's verifier calls wrong."""
    if half_reward is None:
        return {}
    rewarded = [r for r in judged_rollouts(rollouts) if is_rewarded(r, half_reward)]
    return {"rewarded": float(len(rewarded)), "rewarded_wrong": float(sum(r.wrong for r in rewarded))}


def is_rewarded(rollout: SeenRollout, half_reward: float) -> bool:
    """Whether a rollout earned what correct ones earn, rather than what wrong ones do."""
    return rollout.reward is not None and rollout.reward > half_reward


def favourite_answer(rollouts: Iterable[SeenRollout]) -> tuple[str, float] | None:
    """The answer that is given too often: itself, and its share of the answers minus its share of the references."""
    answered = [r for r in rollouts if r.answer]
    if not answered:
        return None
    given = Counter(r.answer for r in answered)
    wanted = Counter(_spelling(r.scored.rollout.prompt.task.answer) for r in answered)
    answer = max(given, key=lambda text: (given[text] - wanted[text or ""], text))
    return answer or "", (given[answer] - wanted[answer or ""]) / len(answered)


def _by_source(rollouts: Sequence[SeenRollout]) -> dict[str, float]:
    """For each source its groups with rollouts, and those whose rewards differ."""
    rewards: dict[tuple[str, int], set[float]] = defaultdict(set)
    for rollout in rollouts:
        if rollout.reward is not None:
            rewards[rollout.source, rollout.place.group].add(rollout.reward)
    numbers: Counter[str] = Counter()
    for (source, _), values in rewards.items():
        numbers[f"groups/{source}"] += 1
        numbers[f"signal/{source}"] += len(values) > 1
    return {name: float(count) for name, count in numbers.items()}


def _spelling(text: str) -> str:
    return " ".join(text.split()).casefold()
