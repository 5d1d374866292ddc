"""Which rollouts of a step show an alarm, the clearest first."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from rl.alarms.facts import SeenRollout, favourite_answer, is_rewarded, judged_rollouts
from rl.alarms.finding import AlarmFinding
from rl.alarms.history import History

Rollouts = Sequence[SeenRollout]
Shows = Callable[[AlarmFinding, History, Rollouts], Rollouts]


def rewarded_wrong(_: AlarmFinding, history: History, rollouts: Rollouts) -> Rollouts:
    """The wrong rollouts that are rewarded as correct ones are."""
    half = history.half_reward()
    return [r for r in wrong(_, history, rollouts) if half is not None and is_rewarded(r, half)]


def wrong(_: AlarmFinding, __: History, rollouts: Rollouts) -> Rollouts:
    """The wrong rollouts, those with the most reward first."""
    return sorted((r for r in judged_rollouts(rollouts) if r.wrong), key=lambda r: -(r.reward or 0.0))


def most_rewarded(_: AlarmFinding, __: History, rollouts: Rollouts) -> Rollouts:
    """Of each question the rollout with the most reward: what the policy is trained to do."""
    best: dict[int, SeenRollout] = {}
    for rollout in sorted(judged_rollouts(rollouts), key=lambda r: -(r.reward or 0.0)):
        best.setdefault(rollout.place.group, rollout)
    return list(best.values())


def favourites(_: AlarmFinding, __: History, rollouts: Rollouts) -> Rollouts:
    """Those that give the step's favourite answer to a question with another reference."""
    judged = judged_rollouts(rollouts)
    favourite = favourite_answer(judged)
    return [r for r in judged if favourite is not None and r.answer == favourite[0] and r.wrong]


def alike(_: AlarmFinding, __: History, rollouts: Rollouts) -> Rollouts:
    """One of each group whose rollouts all earned the same, wrong ones first; then other wrong rollouts."""
    groups: dict[int, list[SeenRollout]] = defaultdict(list)
    for rollout in judged_rollouts(rollouts):
        groups[rollout.place.group].append(rollout)
    equal = [own[0] for own in groups.values() if len({r.reward for r in own}) == 1]
    return [*sorted(equal, key=lambda r: r.correct), *(r for r in wrong(_, __, rollouts) if r not in equal)]


def longest(_: AlarmFinding, __: History, rollouts: Rollouts) -> Rollouts:
    """The completions with the most tokens, those that were cut off first."""
    return sorted(rollouts, key=lambda r: (not r.scored.rollout.completion.cut_off, -r.tokens))


def oldest(_: AlarmFinding, __: History, rollouts: Rollouts) -> Rollouts:
    """Those that the earliest policy version began."""
    return sorted(rollouts, key=lambda r: r.oldest_version)


def failed(_: AlarmFinding, __: History, rollouts: Rollouts) -> Rollouts:
    """Those without a reward."""
    return [r for r in rollouts if r.reward is None]


def nothing(_: AlarmFinding, __: History, ___: Rollouts) -> Rollouts:
    """None: no rollout came of what went wrong."""
    return []


def unlikely(_: AlarmFinding, __: History, rollouts: Rollouts) -> Rollouts:
    """Those whose log-probs are not finite, then those with the least likely token."""

    def least(rollout: SeenRollout) -> float:
        values = rollout.scored.rollout.completion.policy_logprobs
        return float(values.min()) if len(values) and np.isfinite(values).all() else -math.inf

    return sorted(rollouts, key=least)


def of_source(finding: AlarmFinding, _: History, rollouts: Rollouts) -> Rollouts:
    """Those of the source that the finding is about, wrong ones first."""
    return sorted((r for r in rollouts if r.source == finding.source), key=lambda r: r.correct)
