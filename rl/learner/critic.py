"""PPO's critic: the return expected before each response token is drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from configs.algorithms import LossConfig
from configs.critic import CriticConfig
from configs.optimizer import OptimizerConfig
from rl.algorithms.loss_inputs import LossOutput
from rl.algorithms.loss_terms import value_loss
from rl.learner.batch import ImageSet
from rl.learner.forward import EncodedImages, encode, response_hidden
from rl.learner.gradient_sums import GradientSums
from rl.learner.lora import copy_model
from rl.learner.optimizer import advance, build_adamw, build_schedule, clip_gradients
from rl.learner.parallel import Parallel
from rl.learner.trained_state import load_trained_state, trained_state
from rl.types import MicroBatch, PackedRow
from rollouts.model_family import VisionLanguageModel

_HEAD = 10.0  # learning rate of the head, in those of the backbone: only the backbone starts from the policy
_HIGHEST_USUAL = 3e-4  # learning rate of the backbone; five times a toy policy's rate makes it diverge
_WARMUP = 10  # updates over which both rates rise
_FEATURES = 3


class ValueHead(nn.Module):
    """The value before each token, from its hidden state and from how surprising the tokens before it were.

    The log-probs of the prefix are a function of the prefix, so the value stays a baseline. The backbone cannot read
    them off its own forward pass, which computes them in its last layer. The last weights start at 0, so the first
    values are 0, and the first advantages are those without a baseline.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.of_hidden = nn.Linear(hidden_size, hidden_size)
        self.of_surprises = nn.Linear(
            _FEATURES, hidden_size, bias=False
        )  # separate: three of thousands of inputs would count little
        same = torch.Generator().manual_seed(0)  # alike on every rank
        for layer in (self.of_hidden, self.of_surprises):
            nn.init.kaiming_uniform_(layer.weight, a=5**0.5, generator=same)
        nn.init.zeros_(self.of_hidden.bias)
        self.outer = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, hidden: torch.Tensor, surprises: torch.Tensor) -> torch.Tensor:
        """Values `[N]` of hidden states `[N, H]` and `surprises` `[N, 3]`."""
        inner = self.of_hidden(hidden) + self.of_surprises(surprises)
        return self.outer(nn.functional.gelu(inner)).squeeze(-1)


def surprises(logprobs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """How surprising the tokens before each response token were: `log(1 - x)` of three log-probs `x`, as `[N, 3]`.

    `x` is the log-prob of the token before, the sum over all tokens before, and the least of them. At the first token
    of a response all are 0. `logprobs` is `[N]`, `lengths` `[B]` are the tokens of each response.
    """
    rows = []
    for response in logprobs.split(lengths.tolist()):
        before = nn.functional.pad(response[:-1], (1, 0))
        rows.append(torch.stack([before, before.cumsum(0), before.cummin(0).values], dim=1))
    return torch.log1p(-torch.cat(rows).clamp(max=0))


class Critic:
    """A value head on the policy's hidden states (`shared`), or on those of a copy of the policy (`own`).

    The head's learning rate is ten times that of the copy. Both are trained with AdamW, with moments in the type of
    the policy's `optimizer.state`. Their rates rise over ten updates and then follow the policy's schedule. A shared
    backbone is trained by the policy's optimizer. Its first `pretrain_steps` iterations train only the critic.
    """

    def __init__(
        self,
        policy: VisionLanguageModel,
        config: CriticConfig,
        parallel: Parallel,
        *,
        optimizer: OptimizerConfig,
        total_steps: int,
    ) -> None:
        self.config, self._parallel = config, parallel
        self.backbone = copy_model(policy).train() if config.backbone == "own" else None
        self.head = ValueHead(policy.config.text_config.hidden_size).to(policy.device)
        parallel.shard_head(self.head)
        if self.backbone is not None:
            parallel.shard_model(self.backbone)
        rate = config.value_learning_rate or min(5 * optimizer.learning_rate, _HIGHEST_USUAL)
        own = [p for p in self.backbone.parameters() if p.requires_grad] if self.backbone is not None else []
        self._gradients = GradientSums(own)
        groups = [{"params": [*self.head.parameters()], "lr": _HEAD * rate}, {"params": own, "lr": rate}]
        adamw = OptimizerConfig(learning_rate=rate, state=optimizer.state)
        self.optimizer = build_adamw([g for g in groups if g["params"]], adamw)
        self.schedule = build_schedule(self.optimizer, replace(optimizer, warmup_steps=_WARMUP), total=total_steps)
        self.iterations = self.updates = 0
        self._images: EncodedImages | None = None

    @property
    def _weight(self) -> float:
        """Weight of the value loss: a shared backbone serves the policy too."""
        return self.config.value_coef if self.backbone is None else 1.0

    @property
    def trains_alone(self) -> bool:
        """True in the iterations that train only the critic."""
        return self.iterations < self.config.pretrain_steps

    def encode(self, images: ImageSet | None) -> torch.Tensor | None:
        """Image features of the critic's own backbone; None for a shared backbone."""
        return encode(self.backbone, images) if self.backbone is not None else None

    def values(
        self, row: PackedRow, old_logprobs: torch.Tensor, policy_hidden: torch.Tensor, features: torch.Tensor | None
    ) -> torch.Tensor:
        """Values `[N]` before each response token, from the `old_logprobs` `[N]` of all of them.

        A shared critic reads `policy_hidden` `[N, H]`; one with a backbone of its own reads its image `features`.
        """
        hidden = policy_hidden if self.backbone is None else response_hidden(self.backbone, row, features)
        before = surprises(old_logprobs.to(hidden.device), row.lengths)
        return self.head(hidden.float(), before)

    def begin_step(self, images: ImageSet | None) -> None:
        """Encode the images of an optimizer step with the critic's own backbone, if it has one."""
        self._images = EncodedImages(self.backbone, images, self._parallel) if self.backbone is not None else None

    def leaves(self) -> list[torch.Tensor | None]:
        """What the gradients of a step belong to."""
        own = self.backbone.parameters() if self.backbone is not None else ()
        return [*self.head.parameters(), *own, self._images.features if self._images else None]

    def step_values(self, row: PackedRow, old_logprobs: torch.Tensor, policy_hidden: torch.Tensor) -> torch.Tensor:
        """`values` with the images of `begin_step`."""
        return self.values(row, old_logprobs, policy_hidden, self._images.features if self._images else None)

    def loss(self, micro: MicroBatch, policy_hidden: torch.Tensor, *, step_tokens: int) -> LossOutput:
        """The micro-batch's share of the value loss; backward through it fills the critic's gradients."""
        values = self.step_values(micro, micro.old_logprobs, policy_hidden)
        output = value_loss(
            values,
            old_values=micro.columns["old_values"].to(values.device),
            returns=micro.columns["returns"].to(values.device),
            clip=self.config.value_clip if self.iterations else math.inf,  # the first values come from nothing
            step_tokens=step_tokens,
        )
        return LossOutput(loss=self._weight * output.loss, metrics=output.metrics)

    def add_loss(
        self, policy_loss: LossOutput, micro: MicroBatch, policy_hidden: torch.Tensor, *, step_tokens: int
    ) -> LossOutput:
        """The policy's loss and the critic's, for one backward pass through both.

        While the critic is trained alone, the policy's loss has no graph and counts 0; its metrics stay.
        """
        if self.trains_alone:
            policy_loss = LossOutput(loss=0.0 * policy_loss.loss, metrics=policy_loss.metrics)
        return policy_loss + self.loss(micro, policy_hidden, step_tokens=step_tokens)

    def finish_step(self, *, grad_clip: float) -> dict[str, float]:
        """Update the head, and the critic's own backbone. Returns the norm of the gradient as a metric.

        A gradient that is not finite is dropped. The first update only sets the bias to the mean return.
        """
        if self._images is not None:
            self._images.backward()
        self._gradients.finish()
        bias = self.head.outer.bias
        if self.updates == 0 and bias.grad is not None:
            with torch.no_grad():  # Newton's step: the loss is a mean of squares / 2, so its curvature here is 1
                bias -= bias.grad.nan_to_num() / self._weight
        norm = clip_gradients([p for g in self.optimizer.param_groups for p in g["params"]], grad_clip)
        if self.updates:
            if math.isfinite(norm):
                self.optimizer.step()
            advance(self.schedule)
        self.updates += 1
        self.optimizer.zero_grad()
        self._images = None
        return {"critic_grad_norm": norm}

    def end_iteration(self, steps: int) -> None:
        """Count the iteration, and move the learning rates to those after `steps` optimizer steps of the run.

        The first step only sets the bias and uses no learning rate.
        """
        self.iterations += 1
        advance(self.schedule, to=steps - 1)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to continue exactly."""
        backbone = trained_state(self.backbone) if self.backbone is not None else None
        return {
            "head": self.head.state_dict(),
            "backbone": backbone,
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "iterations": self.iterations,
            "updates": self.updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.head.load_state_dict(state["head"])
        if self.backbone is not None:
            load_trained_state(self.backbone, state["backbone"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.iterations, self.updates = state["iterations"], state["updates"]


def build_critic(
    policy: VisionLanguageModel, loss: LossConfig, parallel: Parallel, *, optimizer: OptimizerConfig, total_steps: int
) -> Critic | None:
    """The critic of a recipe, from the whole policy; None if its algorithm has none."""
    config = loss.resolved().critic
    if config is None:
        return None
    return Critic(policy, config, parallel, optimizer=optimizer, total_steps=total_steps)
