"""FSDP2 applied to a model from outside, over a mesh of one dimension, or of two: replicas, and the shards of each.

Each decoder layer, each vision block, the embedding and the head is a unit. Its weights are whole only while it runs.
Gradients are summed over the ranks, not averaged: the losses' denominators are those of the whole step.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Placement, Replicate, Shard

from rl.learner.logprobs import token_logprobs
from rl.learner.lora import Cast, adapted_layers, adapter_delta, add_delta, without_adapters
from rollouts.model_family import VisionLanguageModel


def shard(model: VisionLanguageModel, mesh: DeviceMesh, *, compute_dtype: torch.dtype | None = None) -> None:
    """Shard `model` over `mesh` in place, and move it to the mesh's device.

    With `compute_dtype` each unit computes in it, on weights that keep their type. Gradients are summed in fp32 or
    better. The head then belongs to a unit: compute log-probs with `sharded_logprobs`.
    """
    units = model.shard_units()
    tied = model.lm_head not in units
    units.append(model)  # holds the tied matrix, or no weight of its own
    # The projector returns a view; nothing is added to it in place.
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .*Projection.* returned a view tensor")
    least = torch.promote_types(next(model.parameters()).dtype, torch.float32)
    policy = MixedPrecisionPolicy(param_dtype=compute_dtype, reduce_dtype=least)
    for unit in units:
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        _sum_gradients(unit)
    # The learner calls these instead of `forward`: the first of them makes `model` the root of all units.
    for name in ("encode_images", "embed"):
        register_fsdp_forward_method(model, name)
    head: Any = model if tied else model.lm_head
    head.sharded_logprobs = MethodType(_tied_logprobs if tied else _head_logprobs, head)
    register_fsdp_forward_method(head, "sharded_logprobs")


def shard_whole(module: nn.Module, mesh: DeviceMesh, *, alike: int = 1) -> None:
    """Shard a small module, such as the critic's head, as one unit. `alike` ranks compute the same gradient."""
    fully_shard(module, mesh=mesh)
    _sum_gradients(module, alike=alike)


def reduce_between_replicas(model: Any, enabled: bool) -> None:
    """Whether the next backward passes sum gradients between replicas, too. Else each replica keeps its own sum."""
    model.set_requires_all_reduce(enabled)


def shard_placements(mesh: DeviceMesh) -> list[Placement]:
    """Where a sharded tensor lies: whole on no rank, alike in each replica."""
    return [*([Replicate()] * (mesh.ndim - 1)), Shard(0)]


def sharded_logprobs(
    model: nn.Module,
    hidden: torch.Tensor,
    targets: torch.Tensor,
    *,
    temperature: float,
    barred: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`rl.learner.logprobs.token_logprobs` with the head of a sharded model, whose weights are whole for the call."""
    owner: Any = model if hasattr(model, "sharded_logprobs") else model.lm_head
    return owner.sharded_logprobs(hidden, targets, temperature=temperature, barred=barred)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The whole tensor of a sharded one, else the tensor itself. All ranks must call it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_tree(value: Any, *, keep: bool = True) -> Any:
    """A nested state with every tensor whole and on the CPU where `keep`, else None. All ranks must call it.

    Only one tensor at a time is whole on the device.
    """
    if isinstance(value, dict):
        return {key: whole_tree(inner, keep=keep) for key, inner in value.items()}
    if isinstance(value, list):
        return [whole_tree(inner, keep=keep) for inner in value]
    if not isinstance(value, torch.Tensor):
        return value
    made = whole(value)
    return made.detach().cpu() if keep else None


@torch.no_grad()
def gather_merged(model: nn.Module, cast: Cast, *, keep: bool) -> Iterator[tuple[str, torch.Tensor]]:
    """The merged weights on the CPU where `keep`, elsewhere nothing. All ranks must exhaust the iterator.

    Only one tensor at a time is whole on the device. `cast` is applied after a merge, and to what is not adapted before
    it is gathered: fewer bytes travel. On a CPU, what is not sharded may be the model's own memory.
    """
    layers = dict(adapted_layers(model))
    for name, tensor in without_adapters(model.state_dict()).items():
        value = whole(tensor if name in layers else cast(name, tensor)).detach()
        if name in layers:
            with _whole_adapters(layers[name]):
                value = cast(name, add_delta(value, adapter_delta(layers[name]))) if keep else value
        if keep:
            yield name, value.cpu()
        del tensor, value


@contextmanager
def _whole_adapters(layer: Any) -> Iterator[None]:
    """A context in which the layer's adapter matrices are whole, in their own type rather than the compute type."""
    matrices = [*layer.lora_A.values(), *layer.lora_B.values()]
    sharded = [matrix.weight for matrix in matrices]
    try:
        for matrix, weight in zip(matrices, sharded, strict=True):
            matrix._parameters["weight"] = nn.Parameter(whole(weight.detach()), requires_grad=False)
        yield
    finally:
        for matrix, weight in zip(matrices, sharded, strict=True):
            matrix._parameters["weight"] = weight


def _sum_gradients(module: Any, *, alike: int = 1) -> None:
    module.set_gradient_divide_factor(float(alike))
    module.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum


def _head_logprobs(self: nn.Linear, hidden: torch.Tensor, targets: torch.Tensor, **options: Any) -> Any:
    return token_logprobs(hidden, self.weight, targets, **options)


def _tied_logprobs(self: Any, hidden: torch.Tensor, targets: torch.Tensor, **options: Any) -> Any:
    return token_logprobs(hidden, self.lm_head.weight, targets, **options)
