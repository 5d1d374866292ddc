"""Groups from scored rollouts: which are trained on, and what the metrics say of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from configs.rl import RLConfig
from rewards.types import VerdictKind
from rollouts.sources.scoring import thinks
from rollouts.thinking_patterns import PATTERNS, shows_patterns
from rollouts.types import Group, Prompt, ScoredRollout

_PATTERN_ROLLOUTS = 256  # read for words of thinking: reading them all would hold up a step of thousands


def make_groups(prompts: Sequence[Prompt], scored: Sequence[Sequence[ScoredRollout]]) -> list[Group]:
    """One group a prompt. A rollout whose verifier failed leaves its group and is counted."""
    groups = []
    for prompt, rollouts in zip(prompts, scored, strict=True):
        kept = tuple(r for r in rollouts if r.score.reward is not None)
        groups.append(Group(prompt=prompt, rollouts=kept, dropped=len(rollouts) - len(kept)))
    return groups


def permute_rewards(groups: Sequence[Group], *, seed: int) -> list[Group]:
    """Shuffle all rewards of the step over its rollouts: a control in which nothing can be learned."""
    rewards = [r for g in groups for r in g.rewards]
    shuffled = iter(np.random.default_rng(seed).permutation(rewards).tolist())
    return [
        replace(
            g,
            rollouts=tuple(
                ScoredRollout(rollout=m.rollout, score=replace(m.score, reward=next(shuffled))) for m in g.rollouts
            ),
        )
        for g in groups
    ]


def groups_with_signal(groups: Sequence[Group], config: RLConfig) -> list[Group]:
    """The groups to train on. Groups of equal rewards are left out if all their advantages are 0.

    They stay where they change the advantages of the step: see `AlgorithmParts.keeps_equal_groups`. Groups whose
    completions are all right or all wrong are left out, too, where the recipe samples dynamically (DAPO eq. 8 and 11).
    """
    parts = config.loss.resolved()
    if parts.keeps_equal_groups:
        return [g for g in groups if len(g.rollouts) >= parts.least_rollouts]
    return [g for g in groups if has_signal(g, config)]


def group_metrics(groups: Sequence[Group], config: RLConfig) -> dict[str, float]:
    """What the step's rollouts were like; see docs/metrics.md."""
    rollouts = [r for g in groups for r in g.rollouts]
    if not rollouts:
        return {"rollouts": 0.0, "verifier_failures": float(sum(g.dropped for g in groups))}
    completions = [r.rollout.completion for r in rollouts]
    correct = [r.score.verdict.kind is VerdictKind.CORRECT for r in rollouts]
    metrics = {
        "rollouts": float(len(rollouts)),
        "reward": float(np.mean([r for g in groups for r in g.rewards])),
        "accuracy": float(np.mean(correct)),
        "no_answer_share": float(np.mean([r.score.verdict.kind is VerdictKind.NO_ANSWER for r in rollouts])),
        "verifier_failures": float(sum(g.dropped for g in groups)),
        "thinking_share": float(np.mean([thinks(r.rollout.text) for r in rollouts])),
        "tokens_mean": float(np.mean([len(c.token_ids) for c in completions])),
        "truncated_share": float(np.mean([c.cut_off for c in completions])),
        "repeat_share": float(np.mean([c.finish_reason == "repeat" for c in completions])),
        "signal_share": float(np.mean([has_signal(g, config) for g in groups])),
    }
    metrics |= _pattern_shares(rollouts)
    for source in sorted({g.prompt.task.source for g in groups}):
        own = [c for c, r in zip(correct, rollouts, strict=True) if r.rollout.prompt.task.source == source]
        if own:
            metrics[f"accuracy/{source}"] = float(np.mean(own))
    parts = sorted({name for r in rollouts for name in r.score.parts})
    for name in parts:
        metrics[f"reward/{name}"] = float(np.mean([r.score.parts.get(name, 0.0) for r in rollouts]))
    return metrics


def _pattern_shares(rollouts: Sequence[ScoredRollout]) -> dict[str, float]:
    """The share of rollouts that show each pattern of thinking, over at most about 256 of them, evenly chosen."""
    chosen = rollouts[:: math.ceil(len(rollouts) / _PATTERN_ROLLOUTS)]
    shown = [shows_patterns(r.rollout.text) for r in chosen]
    return {f"patterns/{name}": float(np.mean([s[name] for s in shown])) for name in PATTERNS}


def has_signal(group: Group, config: RLConfig) -> bool:
    """True if a group's rewards differ, and its verifier's scores too where the recipe filters by accuracy.

    Shaping alone is then no signal: wrong answers of unlike length have unlike rewards, but none is to be preferred.
    """
    differ = len(set(group.rewards)) > 1
    return differ and (not config.filters_by_accuracy or len({m.score.verdict.score for m in group.rollouts}) > 1)


def correct_flags(group: Group) -> list[bool]:
    """For each rollout of the group, whether it is correct."""
    return [r.score.verdict.kind is VerdictKind.CORRECT for r in group.rollouts]
