"""Scored rollouts to groups, and groups to samples to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from configs.schema import LengthRewardConfig, RLConfig
from rewards.shaping import length_rewards
from rewards.types import VerdictKind
from rl import advantages
from rl.evaluate import thinks
from rl.types import Sample
from rollouts.types import Group, Prompt, ScoredRollout


def make_groups(prompts: Sequence[Prompt], scored: Sequence[Sequence[ScoredRollout]]) -> list[Group]:
    """One group a prompt. A rollout whose verifier failed leaves its group and is counted."""
    groups = []
    for prompt, rollouts in zip(prompts, scored, strict=True):
        kept = tuple(r for r in rollouts if r.score.reward is not None)
        groups.append(Group(prompt=prompt, members=kept, dropped=len(rollouts) - len(kept)))
    return groups


def shape_by_length(group: Group, config: LengthRewardConfig | None, *, step: int) -> Group:
    """Add the weighted k1.5 length reward (§2.3.3) to each member, once the warm-up is over."""
    if config is None or step < config.warmup_steps or not group.members:
        return group
    lengths = [len(m.rollout.completion.token_ids) for m in group.members]
    correct = [m.score.verdict.kind is VerdictKind.CORRECT for m in group.members]
    members = []
    for member, extra in zip(group.members, length_rewards(lengths, correct), strict=True):
        reward = float(member.score.reward or 0.0) + config.weight * extra
        score = replace(member.score, reward=reward, parts={**member.score.parts, "length": extra})
        members.append(ScoredRollout(rollout=member.rollout, score=score))
    return replace(group, members=tuple(members))


def penalize_repeats(group: Group, penalty: float) -> Group:
    """Take `penalty` off the reward of each member that was ended for repeating itself (k1.5 §2.6.2)."""
    if not penalty:
        return group
    members = []
    for member in group.members:
        repeats = float(member.rollout.completion.finish_reason == "repeat")
        reward = float(member.score.reward or 0.0) - penalty * repeats
        score = replace(member.score, reward=reward, parts={**member.score.parts, "repeat": -repeats})
        members.append(ScoredRollout(rollout=member.rollout, score=score))
    return replace(group, members=tuple(members))


def permute_rewards(groups: Sequence[Group], *, seed: int) -> list[Group]:
    """Shuffle all rewards of the step over its rollouts: a control in which nothing can be learnt."""
    rewards = [r for g in groups for r in g.rewards]
    shuffled = iter(np.random.default_rng(seed).permutation(rewards).tolist())
    return [
        replace(
            g,
            members=tuple(
                ScoredRollout(rollout=m.rollout, score=replace(m.score, reward=next(shuffled))) for m in g.members
            ),
        )
        for g in groups
    ]


def make_samples(groups: Sequence[Group], config: RLConfig) -> list[Sample]:
    """Samples of every group that carries signal; a group whose rewards are all equal teaches nothing."""
    standardise = config.loss.algorithm == "grpo" and config.loss.normalize_std
    samples = []
    for group in groups:
        if not advantages.has_signal(group.rewards):
            continue
        values = advantages.grpo(group.rewards) if standardise else advantages.centered(group.rewards)
        for member, advantage in zip(group.members, values, strict=True):
            completion = member.rollout.completion
            samples.append(
                Sample(
                    prompt=group.prompt,
                    token_ids=completion.token_ids,
                    old_logprobs=completion.policy_logprobs,
                    advantage=float(advantage),
                )
            )
    return samples


def group_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What the step's rollouts were like; see docs/metrics.md."""
    members = [m for g in groups for m in g.members]
    if not members:
        return {"rollouts": 0.0, "verifier_failures": float(sum(g.dropped for g in groups))}
    completions = [m.rollout.completion for m in members]
    correct = [m.score.verdict.kind is VerdictKind.CORRECT for m in members]
    metrics = {
        "rollouts": float(len(members)),
        "reward": float(np.mean([r for g in groups for r in g.rewards])),
        "accuracy": float(np.mean(correct)),
        "no_answer_share": float(np.mean([m.score.verdict.kind is VerdictKind.NO_ANSWER for m in members])),
        "verifier_failures": float(sum(g.dropped for g in groups)),
        "thinking_share": float(np.mean([thinks(m.rollout.text) for m in members])),
        "tokens_mean": float(np.mean([len(c.token_ids) for c in completions])),
        "truncated_share": float(np.mean([c.finish_reason == "length" for c in completions])),
        "repeat_share": float(np.mean([c.finish_reason == "repeat" for c in completions])),
        "signal_share": float(np.mean([advantages.has_signal(g.rewards) for g in groups])),
    }
    for source in sorted({g.prompt.task.source for g in groups}):
        own = [c for c, m in zip(correct, members, strict=True) if m.rollout.prompt.task.source == source]
        if own:
            metrics[f"accuracy/{source}"] = float(np.mean(own))
    parts = sorted({name for m in members for name in m.score.parts})
    for name in parts:
        metrics[f"reward/{name}"] = float(np.mean([m.score.parts.get(name, 0.0) for m in members]))
    return metrics
