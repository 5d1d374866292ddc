"""What stands beside the policy in the learner: the reference that answers are held to, and PPO's critic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from configs.algorithms import LossConfig
from configs.optimizer import OptimizerConfig
from rl.algorithms.loss_inputs import LossOutput
from rl.learner.batch import ImageSet, make_micro_batch
from rl.learner.critic import Critic
from rl.learner.forward import encode, response_hidden
from rl.learner.lora import copy_model
from rl.learner.router_replay import routing_of
from rl.types import MicroBatch, ModelOutputs, Sample
from rollouts.model_family import VisionLanguageModel, family_of

LogprobsOf = Callable[[VisionLanguageModel, torch.Tensor, MicroBatch], torch.Tensor]


class Companions:
    """Reference and critic, each only where the recipe's algorithm asks for it.

    The reference is the policy as RL found it (`frozen`), or the mean of its weights with exponential decay (`ema`);
    for `iteration` no model is kept: it is the policy that sampled, whose log-probs come with the rollouts. With LoRA
    the mean is of the adapters' matrices.
    """

    def __init__(
        self,
        policy: VisionLanguageModel,
        loss: LossConfig,
        *,
        optimizer: OptimizerConfig,
        total_steps: int,
    ) -> None:
        parts = loss.resolved()
        compares = parts.kl is not None or loss.algorithm == "kimi_k15"
        self._decay = loss.reference_decay if parts.reference == "ema" else None
        self._asks_policy = loss.correction is not None
        self.reference: VisionLanguageModel | None = None
        if compares and parts.reference != "iteration":
            self.reference = copy_model(policy).eval().requires_grad_(False)
        self._means: dict[str, torch.Tensor] = {}  # of an `ema` reference, in float32, once it has moved
        self.critic: Critic | None = None
        if parts.critic is not None:
            self.critic = Critic(policy, parts.critic, optimizer=optimizer, total_steps=total_steps)

    @torch.no_grad()
    def model_outputs(
        self,
        policy: VisionLanguageModel,
        samples: Sequence[Sample],
        plan: tuple[list[list[Sample]], ImageSet | None],
        logprobs_of: LogprobsOf,
    ) -> dict[str, ModelOutputs]:
        """What the recipe asks of each response before its advantages are known, by its id.

        `plan` are the micro-batches that hold the samples, and their images; `logprobs_of(model, hidden, micro)` the
        log-probs `[N]` of the response tokens under a model's head.
        """
        parts, images = plan
        if not (parts and (self._asks_policy or self.reference or self.critic)):
            return {sample.id: ModelOutputs() for sample in samples}
        towers = _Towers(policy, self.reference, self.critic, images, asks_policy=self._asks_policy)
        found: dict[str, ModelOutputs] = {}
        for part in parts:
            micro = make_micro_batch(part, images)
            columns = towers.read(micro, logprobs_of)
            pieces = {name: np.split(c, np.cumsum(micro.lengths.numpy())[:-1]) for name, c in columns.items()}
            for row, sample in enumerate(part):
                found[sample.id] = ModelOutputs(**{name: piece[row] for name, piece in pieces.items()})
        return found

    @property
    def policy_waits(self) -> bool:
        """True while the critic learns alone."""
        return self.critic is not None and self.critic.learns_alone

    def begin_step(self, images: ImageSet | None) -> None:
        """Before the micro-batches of an optimizer step."""
        if self.critic is not None:
            self.critic.begin_step(images)

    def add_value_loss(
        self, output: LossOutput, micro: MicroBatch, policy_hidden: torch.Tensor, *, step_tokens: int
    ) -> LossOutput:
        """The policy's loss and the critic's, for one backward pass through both.

        While the policy waits its loss has no graph, and counts nothing.
        """
        if self.critic is None:
            return output
        if self.policy_waits:
            output = LossOutput(loss=0.0 * output.loss, metrics=output.metrics)
        return output + self.critic.loss(micro, policy_hidden, step_tokens=step_tokens)

    def finish_step(self, *, grad_clip: float) -> dict[str, float]:
        """After the micro-batches: the critic's own update. Returns its metrics."""
        return {} if self.critic is None else {"critic_grad_norm": self.critic.finish_step(grad_clip=grad_clip)}

    @torch.no_grad()
    def follow(self, policy: VisionLanguageModel) -> None:
        """After an iteration: an `ema` reference moves towards the policy by `1 - decay`; the critic counts it."""
        if self.critic is not None:
            self.critic.iterations += 1
        if self.reference is None or self._decay is None:
            return
        learnt = {name: p.detach() for name, p in policy.named_parameters() if p.requires_grad}
        for name, own in self.reference.named_parameters():
            if name not in learnt:
                continue
            # In bfloat16 a hundredth of a small distance is rounded away: the mean would stand still.
            mean = own.detach() if own.dtype != torch.bfloat16 else self._means.setdefault(name, own.detach().float())
            mean.lerp_(learnt[name].to(mean.dtype), 1 - self._decay)
            own.copy_(mean)

    def keep_pace(self, steps: int) -> None:
        """The run has made `steps` optimizer steps: the critic's rates are theirs."""
        if self.critic is not None:
            self.critic.keep_pace(steps)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        return {
            "reference": self.reference.state_dict() if self.reference is not None else None,
            "means": self._means,
            "critic": self.critic.state_dict() if self.critic is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])
        self._means = dict(state["means"])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])


class _Towers:
    """The images of the step through every model that is asked, and what each says of a micro-batch."""

    def __init__(
        self,
        policy: VisionLanguageModel,
        reference: VisionLanguageModel | None,
        critic: Critic | None,
        images: ImageSet | None,
        *,
        asks_policy: bool,
    ) -> None:
        self._policy, self._reference, self._critic = policy, reference, critic
        self._asks_policy = asks_policy
        self._reads_policy = asks_policy or (critic is not None and critic.backbone is None)
        self._policy_images = encode(policy, images) if self._reads_policy else None
        self._reference_images = encode(reference, images) if reference is not None else None
        self._critic_images = critic.encode(images) if critic is not None else None

    def read(self, micro: MicroBatch, logprobs_of: LogprobsOf) -> dict[str, np.ndarray]:
        columns: dict[str, torch.Tensor] = {}
        hidden = torch.empty(0)
        if self._reads_policy:
            routing = routing_of(family_of(self._policy.config), micro, self._policy.device)
            hidden = response_hidden(self._policy, micro, self._policy_images, routing=routing)
        if self._asks_policy:
            columns["policy_logprobs"] = logprobs_of(self._policy, hidden, micro)
        if self._reference is not None:
            of_reference = response_hidden(self._reference, micro, self._reference_images)
            columns["reference_logprobs"] = logprobs_of(self._reference, of_reference, micro)
        if self._critic is not None:
            columns["values"] = self._critic.values(micro, hidden, self._critic_images)
        return {name: column.float().cpu().numpy() for name, column in columns.items()}
