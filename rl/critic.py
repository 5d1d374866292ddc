"""PPO's critic: the return expected before each response token is drawn."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import nn

from configs.algorithms import CriticConfig
from kimi_vl import KimiVLForConditionalGeneration
from rl.batch import ImageSet
from rl.forward import EncodedImages, encode, response_hidden
from rl.losses.inputs import LossOutput
from rl.losses.terms import value_loss
from rl.optim import clip_gradients
from rl.types import MicroBatch

_HEAD = 10.0  # the head's learning rate, in those of the copy: it starts from nothing, the copy from the policy


class Critic:
    """A value head on the policy's hidden states (`shared`), or on those of a copy of the policy (`own`).

    The head starts at 0, so the first advantages are those of no baseline, and learns ten times as fast as the copy.
    Both have AdamW at a constant rate; a shared backbone moves with the policy's own gradient.
    """

    def __init__(
        self, policy: KimiVLForConditionalGeneration, config: CriticConfig, *, policy_learning_rate: float
    ) -> None:
        self.config = config
        self.backbone = copy.deepcopy(policy).train() if config.backbone == "own" else None
        self.head = nn.Linear(policy.config.text_config.hidden_size, 1).to(policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        rate = config.value_learning_rate or 5 * policy_learning_rate
        own = [p for p in self.backbone.parameters() if p.requires_grad] if self.backbone is not None else []
        groups = [{"params": [*self.head.parameters()], "lr": _HEAD * rate}, {"params": own, "lr": rate}]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
        self._images: EncodedImages | None = None

    def encode(self, images: ImageSet | None) -> torch.Tensor | None:
        """Image features of the critic's own backbone; None where it reads the policy's hidden states."""
        return encode(self.backbone, images) if self.backbone is not None else None

    def values(self, micro: MicroBatch, policy_hidden: torch.Tensor, features: torch.Tensor | None) -> torch.Tensor:
        """Values `[N]` before each response token; `policy_hidden` `[N, H]` is read by a shared critic."""
        hidden = policy_hidden if self.backbone is None else response_hidden(self.backbone, micro, features)
        return self.head(hidden.float()).squeeze(-1)

    def begin_step(self, images: ImageSet | None) -> None:
        """Encode the step's images, where the backbone is the critic's own."""
        self._images = EncodedImages(self.backbone, images) if self.backbone is not None else None

    def loss(self, micro: MicroBatch, policy_hidden: torch.Tensor, *, step_tokens: int) -> LossOutput:
        """The micro-batch's share of the value loss; backward through it fills the critic's gradients."""
        values = self.values(micro, policy_hidden, self._images.features if self._images else None)
        output = value_loss(
            values,
            old_values=micro.columns["old_values"].to(values.device),
            returns=micro.columns["returns"].to(values.device),
            clip=self.config.value_clip,
            step_tokens=step_tokens,
        )
        weight = self.config.value_coef if self.backbone is None else 1.0
        return LossOutput(loss=weight * output.loss, metrics=output.metrics)

    def finish_step(self, *, grad_clip: float) -> float:
        """One update of the head, and of the backbone where it is the critic's own. Returns the gradient's norm.

        A gradient that is not finite is dropped.
        """
        if self._images is not None:
            self._images.backward()
        norm = clip_gradients([p for g in self.optimizer.param_groups for p in g["params"]], grad_clip)
        if math.isfinite(norm):
            self.optimizer.step()
        self.optimizer.zero_grad()
        self._images = None
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        backbone = self.backbone.state_dict() if self.backbone is not None else None
        return {"head": self.head.state_dict(), "backbone": backbone, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.head.load_state_dict(state["head"])
        if self.backbone is not None:
            self.backbone.load_state_dict(state["backbone"])
        self.optimizer.load_state_dict(state["optimizer"])
