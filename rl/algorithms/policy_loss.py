"""The losses of reinforcement learning, and the one function that the learner calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from configs.algorithms import AlgorithmParts, LossConfig
from rl.algorithms.clipped_losses import cispo_loss, dapo_loss, dr_grpo_loss, grpo_loss, ppo_loss, reinforce_pp_loss
from rl.algorithms.loss_inputs import LossInputs, LossOutput
from rl.algorithms.loss_terms import entropy_term, kl_term, sft_term
from rl.algorithms.mismatch_correction import correct_mismatch
from rl.algorithms.sequence_losses import gspo_loss, kimi_k15_loss, rloo_loss

__all__ = ["LossInputs", "LossOutput", "policy_loss"]

TOKEN_LOSSES: Mapping[str, Callable[..., LossOutput]] = {
    "grpo": grpo_loss,
    "dr_grpo": dr_grpo_loss,
    "dapo": dapo_loss,
    "cispo": cispo_loss,
    "reinforce_pp": reinforce_pp_loss,
    "ppo": ppo_loss,
}
ANSWER_LOSSES: Mapping[str, Callable[..., LossOutput]] = {"gspo": gspo_loss, "rloo": rloo_loss}


def policy_loss(x: LossInputs, config: LossConfig) -> LossOutput:
    """The loss that a recipe names, with its terms: the mismatch correction, KL, the entropy bonus, imitation."""
    parts, metrics = config.resolved(), {}
    if config.correction is not None:
        c = config.correction
        x, metrics = correct_mismatch(x, level=c.level, mode=c.mode, low=c.low, high=c.high)
    output = _surrogate(x, config, parts)
    output = replace(output, metrics={**metrics, **output.metrics})
    kl = parts.kl
    if kl is not None and kl.placement == "loss":
        output += kl_term(
            x,
            coef=kl.coef,
            estimator=kl.estimator,
            importance_weighted=kl.importance_weighted,
            normalization=parts.normalization,
        )
    if config.entropy_bonus:
        output += entropy_term(x, coef=config.entropy_bonus)
    if config.sft_coef:
        output += sft_term(x, coef=config.sft_coef)
    return output


def _surrogate(x: LossInputs, config: LossConfig, parts: AlgorithmParts) -> LossOutput:
    name = config.algorithm
    if name == "kimi_k15":
        return kimi_k15_loss(x, tau=config.tau)
    if name in ANSWER_LOSSES:
        return ANSWER_LOSSES[name](x, clip_low=parts.clip_low, clip_high=parts.clip_high)
    return TOKEN_LOSSES[name](x, clip_low=parts.clip_low, clip_high=parts.clip_high, normalization=parts.normalization)
