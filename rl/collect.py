"""Scored rollouts to groups, and groups to samples to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

import numpy as np

from configs.algorithms import GROUP_FREE
from configs.rl import LengthRewardConfig, RLConfig
from rewards.shaping import length_rewards, overlong_penalty
from rewards.types import VerdictKind
from rl import advantages
from rl.credit import Response, assign
from rl.evaluate import thinks
from rl.routing import recorded_experts
from rl.types import Annotation, Sample, spread
from rollouts.types import Completion, Group, Prompt, ScoredRollout


def make_groups(prompts: Sequence[Prompt], scored: Sequence[Sequence[ScoredRollout]]) -> list[Group]:
    """One group a prompt. A rollout whose verifier failed leaves its group and is counted."""
    groups = []
    for prompt, rollouts in zip(prompts, scored, strict=True):
        kept = tuple(r for r in rollouts if r.score.reward is not None)
        groups.append(Group(prompt=prompt, members=kept, dropped=len(rollouts) - len(kept)))
    return groups


def shape(group: Group, config: RLConfig, *, step: int) -> Group:
    """All that is added to the verifier's reward: k1.5's length reward, DAPO's for long answers, that of loops."""
    group = shape_by_length(group, config.length_reward, step=step)
    limit, buffer = config.sampling.max_new_tokens, config.overlong_buffer
    usual = int(config.loss.resolved().overlong_share * limit)
    group = shape_by_limit(group, limit=limit, buffer=usual if buffer is None else buffer)
    return penalize_repeats(group, config.repeat_penalty)


def shape_by_limit(group: Group, *, limit: int, buffer: int) -> Group:
    """Add DAPO's penalty (§3.4, eq. 13) to answers that end within `buffer` tokens of the limit."""
    if buffer == 0:
        return group
    extras = [overlong_penalty(len(m.rollout.completion.token_ids), limit=limit, buffer=buffer) for m in group.members]
    return _add_to_rewards(group, "overlong", extras, weight=1.0)


def shape_by_length(group: Group, config: LengthRewardConfig | None, *, step: int) -> Group:
    """Add the weighted k1.5 length reward (§2.3.3) to each member, once the warm-up is over."""
    if config is None or step < config.warmup_steps or not group.members:
        return group
    lengths = [len(m.rollout.completion.token_ids) for m in group.members]
    correct = [m.score.verdict.kind is VerdictKind.CORRECT for m in group.members]
    return _add_to_rewards(group, "length", length_rewards(lengths, correct), weight=config.weight)


def _add_to_rewards(group: Group, part: str, extras: Sequence[float], *, weight: float) -> Group:
    """Each member's reward with `weight` times its extra; the extra is kept among its parts."""
    members = []
    for member, extra in zip(group.members, extras, strict=True):
        reward = float(member.score.reward or 0.0) + weight * extra
        score = replace(member.score, reward=reward, parts={**member.score.parts, part: extra})
        members.append(ScoredRollout(rollout=member.rollout, score=score))
    return replace(group, members=tuple(members))


def penalize_repeats(group: Group, penalty: float) -> Group:
    """Take `penalty` off the reward of each member that was ended for repeating itself (k1.5 §2.6.2)."""
    if not penalty:
        return group
    repeats = [-float(m.rollout.completion.finish_reason == "repeat") for m in group.members]
    return _add_to_rewards(group, "repeat", repeats, weight=penalty)


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


def learnable(groups: Sequence[Group], config: RLConfig) -> list[Group]:
    """The groups that teach something: where the baseline is the group's, one whose rewards are all equal does not.

    A KL in the reward is taken off later, answer by answer, so that no two rewards stay equal.
    """
    parts = config.loss.resolved()
    if parts.advantage in GROUP_FREE:
        return [g for g in groups if g.members]
    if parts.kl is not None and parts.kl.placement == "reward":
        return [g for g in groups if len(g.members) > 1]
    return [g for g in groups if advantages.has_signal(g.rewards)]


def make_samples(
    groups: Sequence[Group], config: RLConfig, annotations: Sequence[Sequence[Annotation]], *, oldest: int = 0
) -> list[Sample]:
    """Samples of `learnable` groups with their advantages; `annotations` are the learner's, one for each member.

    Tokens that were inserted, or written by a policy before version `oldest`, are masked: credit passes over them as
    over the prompt. A response of which nothing is left has served its group's baseline, and is no sample.
    """
    responses = [
        [
            _response(member.rollout.completion, reward, note, oldest)
            for member, reward, note in zip(group.members, group.rewards, notes, strict=True)
        ]
        for group, notes in zip(groups, annotations, strict=True)
    ]
    samples = []
    for group, own, credits in zip(groups, responses, assign(responses, config.loss.resolved()), strict=True):
        for member, response, credit in zip(group.members, own, credits, strict=True):
            completion = member.rollout.completion
            mask = completion.mask_from(oldest)
            if not mask.any() or (config.mask_truncated and completion.cut_off):
                continue  # its reward has served the baseline
            columns = dict(credit.columns)
            if response.annotation.reference_logprobs is not None:
                columns["reference_logprobs"] = response.annotation.reference_logprobs
            if config.loss.correction is not None:
                columns["sampler_logprobs"] = completion.sampler_logprobs[mask]
            samples.append(
                Sample(
                    prompt=group.prompt,
                    token_ids=completion.token_ids,
                    mask=None if mask.all() else mask,
                    old_logprobs=spread(response.old_logprobs, mask),
                    advantage=credit.advantage,
                    imitated=member.score.verdict.kind is VerdictKind.CORRECT,
                    experts=recorded_experts(completion) if config.router_replay else None,
                    columns={name: spread(column, mask) for name, column in columns.items()},
                )
            )
    return samples


def _response(completion: Completion, reward: float, note: Annotation, oldest: int) -> Response:
    """The tokens that are learnt from, with what the learner says of them.

    The ratio's denominator is the learner's own log-probs where they were asked for, else the engine's.
    """
    mask = completion.mask_from(oldest)
    nothing = np.zeros(0, np.float32)
    found = {f.name: getattr(note, f.name) for f in fields(note)}
    kept = (
        {k: v[mask] if v is not None else None for k, v in found.items()}
        if mask.any()
        else dict.fromkeys(found, nothing)
    )
    own = kept["policy_logprobs"]
    old = completion.policy_logprobs[mask] if own is None else own
    return Response(reward=reward, old_logprobs=old, annotation=Annotation(**kept))


def sample_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """How far the step's policy is from its reference, what its critic knew of these samples, and what is masked."""

    def of_tokens(name: str) -> np.ndarray:
        return np.concatenate([s.columns[name][s.learnt] for s in samples])

    metrics = {}
    if any(s.mask is not None for s in samples):
        total = sum(len(s.token_ids) for s in samples)
        metrics["masked_share"] = 1.0 - sum(s.learnt_tokens for s in samples) / total
    if samples and "reference_logprobs" in samples[0].columns:
        gap = np.concatenate([s.old_logprobs[s.learnt] for s in samples]) - of_tokens("reference_logprobs")
        metrics["kl_reference"] = float(np.mean(np.expm1(-gap) + gap))
    if samples and "returns" in samples[0].columns:
        values, returns = of_tokens("old_values"), of_tokens("returns")
        metrics["explained_variance"] = advantages.explained_variance(values, returns)
    return metrics


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
        "truncated_share": float(np.mean([c.cut_off for c in completions])),
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
