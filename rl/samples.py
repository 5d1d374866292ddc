"""Groups to advantages, and advantages to the samples that the learner trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from configs.rl import RLConfig
from rewards.types import VerdictKind
from rl.algorithms import advantages
from rl.algorithms.response_advantages import Response, ResponseAdvantage, response_advantages
from rl.learner.router_replay import recorded_experts
from rl.types import ModelOutputs, Sample, spread
from rollouts.types import Completion, Group


def compute_advantages(
    groups: Sequence[Group], config: RLConfig, outputs: Sequence[Sequence[ModelOutputs]], *, min_version: int = 0
) -> list[list[ResponseAdvantage]]:
    """The advantage of each rollout of each group, or of each of its tokens, by the recipe's algorithm.

    `outputs` are the learner's, one for each rollout. Tokens that were inserted, or sampled by a policy before
    `min_version`, have none.
    """
    responses = [
        [
            _response(member.rollout.completion, reward, own, min_version)
            for member, reward, own in zip(group.rollouts, group.rewards, notes, strict=True)
        ]
        for group, notes in zip(groups, outputs, strict=True)
    ]
    return response_advantages(responses, config.loss.resolved())


def build_samples(
    groups: Sequence[Group],
    config: RLConfig,
    outputs: Sequence[Sequence[ModelOutputs]],
    advantages: Sequence[Sequence[ResponseAdvantage]],
    *,
    min_version: int = 0,
) -> list[Sample]:
    """What the learner trains on, from rollouts and their advantages.

    A rollout without a trainable token, or one that was cut off with `mask_truncated`, gives no sample. Its reward
    counted in the advantages of its group.
    """
    samples = []
    for group, notes, own in zip(groups, outputs, advantages, strict=True):
        for member, note, advantage in zip(group.rollouts, notes, own, strict=True):
            completion = member.rollout.completion
            mask = completion.mask_from(min_version)
            if not mask.any() or (config.mask_truncated and completion.cut_off):
                continue
            columns = {name: spread(column, mask) for name, column in advantage.columns.items()}
            if note.reference_logprobs is not None:
                columns["reference_logprobs"] = _only(note.reference_logprobs, mask)
            if note.policy_logprobs is not None:
                columns["engine_logprobs"] = _only(completion.policy_logprobs, mask)
            if config.loss.correction is not None:
                columns["sampler_logprobs"] = _only(completion.sampler_logprobs, mask)
            samples.append(
                Sample(
                    id=member.rollout.id,
                    prompt=group.prompt,
                    token_ids=completion.token_ids,
                    mask=None if mask.all() else mask,
                    old_logprobs=_only(_old_logprobs(completion, note), mask),
                    advantage=advantage.advantage,
                    sft_mask=member.score.verdict.kind is VerdictKind.CORRECT,
                    experts=recorded_experts(completion) if config.router_replay else None,
                    columns=columns,
                )
            )
    return samples


def make_samples(
    groups: Sequence[Group], config: RLConfig, outputs: Sequence[Sequence[ModelOutputs]], *, min_version: int = 0
) -> list[Sample]:
    """`compute_advantages`, then `build_samples`."""
    advantages = compute_advantages(groups, config, outputs, min_version=min_version)
    return build_samples(groups, config, outputs, advantages, min_version=min_version)


def _response(completion: Completion, reward: float, outputs: ModelOutputs, min_version: int) -> Response:
    """The trainable tokens of a completion, with what the learner says of them."""
    mask = completion.mask_from(min_version)
    old, columns = _old_logprobs(completion, outputs), {f.name: getattr(outputs, f.name) for f in fields(outputs)}
    if not mask.any():
        old, columns = old[mask], dict.fromkeys(columns, np.zeros(0, np.float32))
    elif not mask.all():  # else nothing is copied: gigabytes, in a step of many long answers
        old = old[mask]
        columns = {name: column if column is None else column[mask] for name, column in columns.items()}
    return Response(reward=reward, old_logprobs=old, model_outputs=ModelOutputs(**columns))


def _old_logprobs(completion: Completion, outputs: ModelOutputs) -> np.ndarray:
    """The log-probs before the update, `[T]`: the learner's own where it has read them, else those of the engine."""
    return completion.policy_logprobs if outputs.policy_logprobs is None else outputs.policy_logprobs


def _only(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """`values` `[T]` of the tokens in `mask`, and 0 at the others."""
    return values if mask.all() else spread(values[mask], mask)


def sample_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """The policy's distance from its reference, the critic's explained variance, and the share of masked tokens."""

    def of_tokens(name: str) -> np.ndarray:
        return np.concatenate([s.columns[name][s.trainable] for s in samples])

    metrics = {}
    if any(s.mask is not None for s in samples):
        total = sum(len(s.token_ids) for s in samples)
        metrics["masked_share"] = 1.0 - sum(s.trainable_tokens for s in samples) / total
    if samples and "reference_logprobs" in samples[0].columns:
        gap = np.concatenate([s.old_logprobs[s.trainable] for s in samples]) - of_tokens("reference_logprobs")
        metrics["kl_reference"] = float(np.mean(np.expm1(-gap) + gap))
    if samples and "returns" in samples[0].columns:
        values, returns = of_tokens("old_values"), of_tokens("returns")
        metrics["explained_variance"] = advantages.explained_variance(values, returns)
    return metrics
