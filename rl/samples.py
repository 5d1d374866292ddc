"""Scored rollouts to groups, and groups to samples to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from configs.rl import RLConfig
from rewards.types import VerdictKind
from rl.algorithms import advantages
from rl.algorithms.credit import Response, assign
from rl.learner.router_replay import recorded_experts
from rl.types import ModelOutputs, Sample, spread
from rollouts.types import Completion, Group


def make_samples(
    groups: Sequence[Group], config: RLConfig, annotations: Sequence[Sequence[ModelOutputs]], *, min_version: int = 0
) -> list[Sample]:
    """Samples with their advantages; `annotations` are the learner's outputs, one for each rollout of each group.

    Tokens that were inserted, or written by a policy before `min_version`, are masked: credit passes over them
    as over the prompt. A response of which nothing is left has served its group's baseline, and is no sample.
    """
    responses = [
        [
            _response(member.rollout.completion, reward, note, min_version)
            for member, reward, note in zip(group.rollouts, group.rewards, notes, strict=True)
        ]
        for group, notes in zip(groups, annotations, strict=True)
    ]
    samples = []
    for group, own, credits in zip(groups, responses, assign(responses, config.loss.resolved()), strict=True):
        for member, response, credit in zip(group.rollouts, own, credits, strict=True):
            completion = member.rollout.completion
            mask = completion.mask_from(min_version)
            if not mask.any() or (config.mask_truncated and completion.cut_off):
                continue  # its reward has served the baseline
            columns = dict(credit.columns)
            if response.annotation.reference_logprobs is not None:
                columns["reference_logprobs"] = response.annotation.reference_logprobs
            if config.loss.correction is not None:
                columns["sampler_logprobs"] = completion.sampler_logprobs[mask]
            samples.append(
                Sample(
                    id=member.rollout.id,
                    prompt=group.prompt,
                    token_ids=completion.token_ids,
                    mask=None if mask.all() else mask,
                    old_logprobs=spread(response.old_logprobs, mask),
                    advantage=credit.advantage,
                    sft_mask=member.score.verdict.kind is VerdictKind.CORRECT,
                    experts=recorded_experts(completion) if config.router_replay else None,
                    columns={name: spread(column, mask) for name, column in columns.items()},
                )
            )
    return samples


def _response(completion: Completion, reward: float, note: ModelOutputs, min_version: int) -> Response:
    """The tokens that are learnt from, with what the learner says of them.

    The ratio's denominator is the learner's own log-probs where they were asked for, else the engine's.
    """
    mask = completion.mask_from(min_version)
    nothing = np.zeros(0, np.float32)
    found = {f.name: getattr(note, f.name) for f in fields(note)}
    kept = (
        {k: v[mask] if v is not None else None for k, v in found.items()}
        if mask.any()
        else dict.fromkeys(found, nothing)
    )
    own = kept["policy_logprobs"]
    old = completion.policy_logprobs[mask] if own is None else own
    return Response(reward=reward, old_logprobs=old, annotation=ModelOutputs(**kept))


def sample_metrics(samples: Sequence[Sample]) -> dict[str, float]:
    """How far the step's policy is from its reference, what its critic knew of these samples, and what is masked."""

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
