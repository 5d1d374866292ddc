"""Which loss each algorithm uses, and `policy_loss`, the one function that the learner calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from configs.algorithms import AlgorithmParts, LossConfig
from rl.algorithms.clipped_losses import cispo_loss, clipped_loss
from rl.algorithms.loss_inputs import LossInputs, LossOutput
from rl.algorithms.loss_terms import entropy_term, kl_term, sft_term
from rl.algorithms.mismatch_correction import correct_mismatch
from rl.algorithms.sequence_losses import gspo_loss, kimi_k15_loss, rloo_loss

__all__ = ["LossInputs", "LossOutput", "policy_loss"]

# One ratio per token. Advantages, clip bounds and normalization of each are in `configs.algorithms.ALGORITHMS`.
TOKEN_LOSSES: Mapping[str, Callable[..., LossOutput]] = {
    # DeepSeekMath (2402.03300) §4.1.1, eq. 3, its KL term apart: mean over completions of the mean over tokens
    "grpo": clipped_loss,
    # 2503.20783 §3.2: GRPO without the division by the deviation (which favours easy and hard prompts) and by the
    # completion's length (which favours long wrong completions); the sum over tokens is divided by a constant
    "dr_grpo": clipped_loss,
    # 2503.14476 §3, eq. 8: a wider clip above (§3.1), and the mean over all tokens of the step (§3.3)
    "dapo": clipped_loss,
    # MiniMax-M1 (2506.13585) §3.1, eq. 4
    "cispo": cispo_loss,
    # 2501.03262 §3: PPO's clip without a critic; A_t is the reward less the KL penalties from token t on, standardised
    # over the whole step
    "reinforce_pp": clipped_loss,
    # 1707.06347 §3, eq. 7, with generalised advantages of each token (1506.02438)
    "ppo": clipped_loss,
}
# One ratio per completion. The citations are in the functions.
SEQUENCE_LOSSES: Mapping[str, Callable[..., LossOutput]] = {"gspo": gspo_loss, "rloo": rloo_loss}


def policy_loss(x: LossInputs, config: LossConfig) -> LossOutput:
    """The loss of the recipe's algorithm with its terms: mismatch correction, KL, entropy bonus, supervised term."""
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
    if name in SEQUENCE_LOSSES:
        return SEQUENCE_LOSSES[name](x, clip_low=parts.clip_low, clip_high=parts.clip_high)
    return TOKEN_LOSSES[name](x, clip_low=parts.clip_low, clip_high=parts.clip_high, normalization=parts.normalization)
