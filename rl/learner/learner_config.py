"""What the learner needs to know of a recipe."""

from __future__ import annotations

from dataclasses import dataclass

from configs.algorithms import LossConfig
from configs.optimizer import OptimizerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """What the learner needs to know of a recipe."""

    loss: LossConfig
    optimizer: OptimizerConfig
    temperature: float  # the rollouts' temperature: log-probs are of the same distribution
    total_steps: int  # optimizer steps of the run, for the schedules
    max_new_tokens: int  # the rollouts' limit, which Dr.GRPO divides by
    epochs: int = 1
    minibatches: int = 1
    micro_batch_tokens: int = 16_384  # packed tokens of one forward pass, and patches of one pass of the tower
    spike_threshold: float = 0.0  # times the usual gradient norm; 0: no step is skipped for its size
    seed: int = 0

    @property
    def steps_per_iteration(self) -> int:
        """Optimizer steps of one `rl.learner.learner.Learner.update` with enough samples."""
        return self.epochs * self.minibatches

    @property
    def reads_old_logprobs(self) -> bool:
        """True if the policy's log-probs are read before the update: by later updates, or by a KL in the reward.

        The first update takes those of its own forward pass, so a recipe with one update needs no further pass.
        """
        kl = self.loss.resolved().kl
        return self.steps_per_iteration > 1 or (kl is not None and kl.placement == "reward")

    @property
    def reads_before_update(self) -> bool:
        """True if `Learner.model_outputs` runs a model: for log-probs of the policy or a reference, or for values."""
        parts = self.loss.resolved()
        compares = parts.kl is not None or self.loss.algorithm == "kimi_k15"
        reference = compares and parts.reference != "iteration"
        return self.reads_old_logprobs or reference or parts.critic is not None

    @property
    def waiting_steps(self) -> int:
        """The optimizer steps in which the policy waits for its critic."""
        critic = self.loss.resolved().critic
        return critic.pretrain_steps * self.steps_per_iteration if critic is not None else 0

    @property
    def policy_steps(self) -> int:
        """The optimizer steps that the policy makes."""
        return max(1, self.total_steps - self.waiting_steps)
