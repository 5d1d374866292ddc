"""Muon (Moonlight §2.2) on sharded weights: momentum stays sharded; one matrix at a time is whole.

The shard of a fused expert tensor holds whole experts, so experts need no communication. They are nine of ten
parameters in a mixture of 64 experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate

from configs.optimizer import OptimizerConfig
from rl.learner.optimizer import MuonWithAdamW, decay_groups, is_matrix, matrix_views

_MOMENTUM = 0.95  # torch.optim.Muon's


class ShardedMuonWithAdamW(MuonWithAdamW):
    """`MuonWithAdamW` for parameters that are DTensors sharded over their rows, or over their experts."""

    def __init__(
        self, named: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig, experts: Mapping[str, int]
    ) -> None:
        named = [(name, p) for name, p in named if p.requires_grad]
        matrices = [(name, p) for name, p in named if is_matrix(name, p)]
        rest = [(name, p) for name, p in named if not is_matrix(name, p)]
        torch.optim.Optimizer.__init__(self, [p for _, p in named], {})
        self._muon = _ShardedMuon(matrices, experts, lr=config.learning_rate, weight_decay=config.weight_decay)
        self._adamw = torch.optim.AdamW(
            decay_groups(rest, config.weight_decay),
            lr=config.learning_rate,
            betas=config.betas,
        )
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]

    def of_views(self, state: dict[str, Any]) -> dict[str, Any]:
        """This optimizer's state, with whole tensors, from that of a `MuonWithAdamW`, which has one momentum a view."""
        (group,) = self._muon.param_groups
        views, at, momenta = state["muon"]["state"], 0, {}
        for index, (name, parameter) in enumerate(zip(self._muon.names, group["params"], strict=True)):
            whole = torch.empty(parameter.shape, dtype=parameter.dtype)
            parts = matrix_views(name, whole, self._muon.experts)
            if at in views:  # none of a parameter's matrices has a momentum where it never had a gradient
                for i, part in enumerate(parts, at):
                    part.copy_(views[i]["momentum_buffer"])
                momenta[index] = {"momentum_buffer": whole}
            at += len(parts)
        options = {key: value for key, value in state["muon"]["param_groups"][0].items() if key in group}
        options["params"] = list(range(len(group["params"])))
        return {"muon": {"state": momenta, "param_groups": [options]}, "adamw": state["adamw"]}

    def step(self, closure: None = None) -> None:
        """One update of both optimizers; all ranks must call it. Closures are not supported."""
        self._muon.step()
        self._adamw.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients."""
        self._muon.zero_grad(set_to_none)
        self._adamw.zero_grad(set_to_none)


class _ShardedMuon(torch.optim.Optimizer):
    """Muon on the matrices. A parameter without a gradient stays as it is, as in torch.optim.Muon."""

    def __init__(
        self,
        named: list[tuple[str, nn.Parameter]],
        experts: Mapping[str, int],
        *,
        lr: float,
        weight_decay: float,
    ) -> None:
        self.names, self.experts = [name for name, _ in named], experts
        super().__init__([{"params": [p for _, p in named]}], {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every matrix."""
        (group,) = self.param_groups
        for name, parameter in zip(self.names, group["params"], strict=True):
            if parameter.grad is None:
                continue
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter.grad)
            momentum = state["momentum_buffer"]
            momentum.lerp_(parameter.grad, 1 - _MOMENTUM)
            direction = parameter.grad.lerp(momentum, _MOMENTUM)  # Nesterov
            weight = parameter.to_local()
            weight.mul_(1 - group["lr"] * group["weight_decay"])
            weight.add_(_update(name, direction, self.experts, lr=group["lr"]).to(weight.dtype))


def _update(name: str, direction: DTensor, experts: Mapping[str, int], *, lr: float) -> torch.Tensor:
    """This rank's shard of the update: the orthogonalised direction times -lr, as added to the weight."""
    if direction.ndim == 3:
        return _orthogonal(name, direction.to_local(), experts, lr=lr)
    whole = _orthogonal(name, direction.full_tensor(), experts, lr=lr)
    replicated = DTensor.from_local(
        whole, direction.device_mesh, [Replicate()] * direction.device_mesh.ndim, run_check=False
    )
    return replicated.redistribute(placements=direction.placements).to_local()


def _orthogonal(name: str, direction: torch.Tensor, experts: Mapping[str, int], *, lr: float) -> torch.Tensor:
    """One step of torch.optim.Muon, without momentum or decay, from a weight of zeros."""
    update = torch.zeros_like(direction)
    weights = [nn.Parameter(view) for view in matrix_views(name, update, experts)]
    for weight, gradient in zip(weights, matrix_views(name, direction, experts), strict=True):
        weight.grad = gradient
    groups: list[dict[str, Any]] = [{"params": weights}]
    torch.optim.Muon(
        groups, lr=lr, weight_decay=0.0, momentum=0.0, nesterov=False, adjust_lr_fn="match_rms_adamw"
    ).step()
    return update
