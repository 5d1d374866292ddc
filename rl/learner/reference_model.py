"""The reference policy as a model of its own: for the KL penalty, and for the log-ratio of Kimi k1.5 (§2.3.2)."""

from __future__ import annotations

from typing import Any

import torch

from configs.algorithms import LossConfig
from rl.learner.lora import copy_model
from rl.learner.parallel import Parallel
from rl.learner.trained_state import load_trained_state, trained_names, trained_state
from rollouts.model_family import VisionLanguageModel


class ReferenceModel:
    """A copy of the policy at the start of RL: frozen, or the exponential moving average of the policy.

    `decay` is the share of the reference that remains at each iteration; None freezes it. With LoRA the matrices of
    the adapters are averaged.
    """

    def __init__(self, policy: VisionLanguageModel, parallel: Parallel, *, decay: float | None = None) -> None:
        self.model = copy_model(policy).eval().requires_grad_(False)
        parallel.shard_model(self.model)
        self._moving = frozenset() if decay is None else trained_names(policy)
        self._decay = decay
        self._means: dict[str, torch.Tensor] = {}  # float32 averages of bfloat16 weights, once they have moved

    @torch.no_grad()
    def follow(self, policy: VisionLanguageModel) -> None:
        """Move the average towards the policy by `1 - decay`, after an iteration. A frozen reference stays."""
        if self._decay is None:
            return
        trained = {name: p.detach() for name, p in policy.named_parameters()}
        for name, own in self.model.named_parameters():
            if name not in self._moving:
                continue
            # bfloat16 would round a hundredth of a small distance to nothing, and the average would never move.
            mean = own.detach() if own.dtype != torch.bfloat16 else self._means.setdefault(name, own.detach().float())
            mean.lerp_(trained[name].to(mean.dtype), 1 - self._decay)
            own.copy_(mean)

    def state_dict(self) -> dict[str, Any]:
        """The weights that move, and their averages in float32 where there are any."""
        return {"model": trained_state(self.model, self._moving), "means": self._means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        load_trained_state(self.model, state["model"], self._moving)
        self._means = dict(state["means"])


def build_reference(policy: VisionLanguageModel, loss: LossConfig, parallel: Parallel) -> ReferenceModel | None:
    """The reference model of a recipe, from the whole policy. None if the algorithm compares with none.

    None also for `iteration`: that reference is the policy at the start of the step, the ratio's denominator.
    """
    if loss.reference_model is None:
        return None
    return ReferenceModel(policy, parallel, decay=loss.reference_decay if loss.reference_model == "ema" else None)
