"""What is added to a verifier's reward: length, the limit of tokens, repetition (k1.5 §2.3.3, §2.6.2; DAPO §3.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from configs.rewards import LengthRewardConfig
from configs.rl import RLConfig
from rewards.shaping import length_rewards, overlong_penalty
from rewards.types import VerdictKind
from rollouts.types import Group, ScoredRollout


def shape_rewards(group: Group, config: RLConfig, *, step: int) -> Group:
    """Add k1.5's length reward, DAPO's penalty for long completions, and the penalty for loops to the rewards."""
    group = shape_by_length(group, config.length_reward, step=step)
    limit, buffer = config.sampling.max_new_tokens, config.overlong_buffer
    usual = int(config.loss.resolved().overlong_share * limit)
    group = shape_by_limit(group, limit=limit, buffer=usual if buffer is None else buffer)
    return penalize_repeats(group, config.repeat_penalty)


def shape_by_limit(group: Group, *, limit: int, buffer: int) -> Group:
    """Add DAPO's penalty (§3.4, eq. 13) to completions that end within `buffer` tokens of the limit."""
    if buffer == 0:
        return group
    extras = [overlong_penalty(len(r.rollout.completion.token_ids), limit=limit, buffer=buffer) for r in group.rollouts]
    return _add_to_rewards(group, "overlong", extras, weight=1.0)


def shape_by_length(group: Group, config: LengthRewardConfig | None, *, step: int) -> Group:
    """Add the weighted k1.5 length reward (§2.3.3) to each rollout, once the warm-up is over."""
    if config is None or step < config.warmup_steps or not group.rollouts:
        return group
    lengths = [len(r.rollout.completion.token_ids) for r in group.rollouts]
    correct = [r.score.verdict.kind is VerdictKind.CORRECT for r in group.rollouts]
    return _add_to_rewards(group, "length", length_rewards(lengths, correct), weight=config.weight)


def length_weight_note(config: RLConfig) -> str | None:
    """What to say of a length reward whose weight cancels in some groups; None where it counts in all that train.

    In a group of all right answers the rewards are `1 + weight * extra`, and dividing by the group's deviation takes
    the weight out again: length then counts as much as correctness elsewhere. Groups without right and wrong answers
    are not trained on where the recipe filters by accuracy.
    """
    divides = config.loss.resolved().advantage == "group_std"
    if config.length_reward is None or not divides or config.filters_by_accuracy:
        return None
    return (
        f"note: rl.length_reward.weight = {config.length_reward.weight:g} has no effect in groups of all right or all "
        "wrong answers: advantages of group_std are divided by the group's deviation, so length alone gives them full "
        "size. rl.loss.advantage: group_mean keeps the weight; rl.task_sampler.name: dynamic leaves these groups out"
    )


def _add_to_rewards(group: Group, part: str, extras: Sequence[float], *, weight: float) -> Group:
    """Each rollout's reward with `weight` times its extra; the extra is kept among its parts."""
    shaped = []
    for scored, extra in zip(group.rollouts, extras, strict=True):
        reward = float(scored.score.reward or 0.0) + weight * extra
        score = replace(scored.score, reward=reward, parts={**scored.score.parts, part: extra})
        shaped.append(ScoredRollout(rollout=scored.rollout, score=score))
    return replace(group, rollouts=tuple(shaped))


def penalize_repeats(group: Group, penalty: float) -> Group:
    """Take `penalty` off the reward of each rollout that was ended for repeating itself (k1.5 §2.6.2)."""
    if not penalty:
        return group
    repeats = [-float(r.rollout.completion.finish_reason == "repeat") for r in group.rollouts]
    return _add_to_rewards(group, "repeat", repeats, weight=penalty)
