"""The advantage of each response and of its tokens, by the algorithm of the recipe. No I/O, no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from configs.algorithms import AlgorithmParts, KLConfig
from configs.critic import CriticConfig
from rl.algorithms import advantages
from rl.algorithms.loss_terms import kl_estimate
from rl.types import ModelOutputs


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What advantages depend on: the reward, and `[T]` numbers of its trainable tokens; T may be 0."""

    reward: float
    old_logprobs: np.ndarray  # [T], of the policy at the iteration's start
    model_outputs: ModelOutputs


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseAdvantage:
    """The advantage of a response; where its tokens differ, `columns` has theirs and `advantage` is their mean."""

    advantage: float
    columns: Mapping[str, np.ndarray]


GROUP_ADVANTAGES = {
    "group_std": advantages.grpo,
    "group_mean": advantages.centered,
    "leave_one_out": advantages.leave_one_out,
}


def response_advantages(groups: Sequence[Sequence[Response]], parts: AlgorithmParts) -> list[list[ResponseAdvantage]]:
    """The advantages of every response of a step, in order. A KL penalty in the reward is subtracted first.

    Advantages within a group subtract its sum over the response. The others subtract it token by token.
    """
    if parts.advantage in GROUP_ADVANTAGES:
        function = GROUP_ADVANTAGES[parts.advantage]
        return [
            [ResponseAdvantage(advantage=float(a), columns={}) for a in function([_total(r, parts.kl) for r in group])]
            for group in groups
        ]
    responses = [r for group in groups for r in group]
    if not responses:
        return [[] for _ in groups]
    if parts.critic is not None:
        found = iter(_by_critic(responses, parts.critic, parts.kl))
    else:
        centre = parts.advantage == "group_global_std"
        baselines = [float(np.mean([r.reward for r in group])) if centre else 0.0 for group in groups for _ in group]
        found = iter(_by_step(responses, baselines, parts.kl))
    return [[next(found) for _ in group] for group in groups]


def _by_step(responses: Sequence[Response], baselines: Sequence[float], kl: KLConfig | None) -> list[ResponseAdvantage]:
    """Reward to go less a baseline, standardised over all tokens of the step (REINFORCE++ §3)."""
    to_go = [
        advantages.rewards_of_tokens(r.reward - baseline, _penalties(r, kl))[::-1].cumsum()[::-1]
        for r, baseline in zip(responses, baselines, strict=True)
    ]
    return [_of_tokens(a) for a in advantages.standardise(to_go)]


def _by_critic(responses: Sequence[Response], critic: CriticConfig, kl: KLConfig | None) -> list[ResponseAdvantage]:
    """Generalised advantages, standardised over all tokens of the step, and the critic's returns."""
    values = [r.model_outputs.values for r in responses]
    if any(own is None for own in values):
        raise ValueError("generalised advantages need the critic's values of each token")
    known = [own for own in values if own is not None]
    rewards = [advantages.rewards_of_tokens(r.reward, _penalties(r, kl)) for r in responses]
    found = advantages.gae(rewards, known, gamma=critic.gamma, lam=critic.gae_lambda)
    standard = advantages.standardise([a for a, _ in found])
    columns = [{"old_values": own, "returns": r.astype(np.float32)} for own, (_, r) in zip(known, found, strict=True)]
    return [_of_tokens(a, c) for a, c in zip(standard, columns, strict=True)]


def _of_tokens(values: np.ndarray, columns: Mapping[str, np.ndarray] | None = None) -> ResponseAdvantage:
    tokens = {"token_advantages": values.astype(np.float32)}
    mean = float(values.mean()) if len(values) else 0.0
    return ResponseAdvantage(advantage=mean, columns={**tokens, **(columns or {})})


def _total(response: Response, kl: KLConfig | None) -> float:
    return response.reward - float(_penalties(response, kl).sum())


def _penalties(response: Response, kl: KLConfig | None) -> np.ndarray:
    """`coef * k(log pi_old - log pi_ref)` of each token where the recipe has the KL in the reward, else zeros."""
    if kl is None or kl.placement != "reward":
        return np.zeros(len(response.old_logprobs))
    if response.model_outputs.reference_logprobs is None:
        raise ValueError("a KL penalty in the reward needs the reference's log-probs of each token")
    log_ratio = response.old_logprobs.astype(np.float64) - response.model_outputs.reference_logprobs
    return kl.coef * kl_estimate(torch.from_numpy(log_ratio), kl.estimator).numpy()
