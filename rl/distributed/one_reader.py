"""Ranks get their weights from the first rank, which alone reads the model's folder.

The others build the model on the meta device. Each tensor is scattered: a rank receives its shard and nothing else,
and holds no more than one tensor beside its shards. Files are so read once for all ranks of all nodes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor

from configs.errors import UserError
from rl.run.loading import load_model
from rollouts.model_family import VisionLanguageModel, family_of

_Tensors = dict[str, torch.Tensor]


def open_on_rank(path: str, *, dtype: torch.dtype) -> VisionLanguageModel:
    """The model in `path`: its weights on the first rank, on the others a model on the meta device.

    Raises UserError on every rank where the first cannot open it, so that none waits for the others.
    """
    model, problem = None, None
    if dist.get_rank() == 0:
        try:
            model = load_model(path, name=path, dtype=dtype)
        except UserError as error:
            problem = error
    found: list[Any] = [problem, model.config if model is not None else None]
    dist.broadcast_object_list(found, src=0)
    if found[0] is not None:
        raise found[0]
    if model is None:
        with torch.device("meta"):
            model = family_of(found[1]).new_model(found[1]).eval()
    return model


def tensors_of(module: nn.Module) -> _Tensors:
    """Parameters and buffers by name, those too that no state dict has."""
    return {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}


def give_memory(module: nn.Module, whole: _Tensors) -> None:
    """Put tensors of the first rank's types in place of what is on the meta device, before `module` is sharded.

    A CPU tensor that nobody writes takes no memory, so only the shards that are cut out of it do.
    """
    kinds: list[Any] = [{name: tensor.dtype for name, tensor in whole.items()}]
    dist.broadcast_object_list(kinds, src=0)
    made: dict[int, Any] = {}  # a tied parameter has several names
    gone: list[torch.Tensor] = []  # kept until the end: the id of what is freed may come again
    for prefix, inner in module.named_modules():
        for table in (inner._parameters, inner._buffers):
            for name, old in table.items():
                if old is None or not old.is_meta:
                    continue
                if id(old) not in made:
                    dtype = kinds[0].get(f"{prefix}.{name}" if prefix else name, old.dtype)
                    new = torch.empty_like(old, dtype=dtype, device="cpu")
                    made[id(old)] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
                table[name] = made[id(old)]
                gone.append(old)


@torch.no_grad()
def receive(module: nn.Module, whole: _Tensors, mesh: DeviceMesh) -> None:
    """Give every rank its part of the first rank's `whole` tensors, after `module` was sharded."""
    for name, own in tensors_of(module).items():
        first = dist.get_rank() == 0
        given = whole[name].to(own.device) if first else torch.empty(own.shape, dtype=own.dtype, device=own.device)
        if isinstance(own, DTensor):
            own.to_local().copy_(distribute_tensor(given, mesh, own.placements, src_data_rank=0).to_local())
        else:
            dist.broadcast(given, src=0)
            own.copy_(given)
