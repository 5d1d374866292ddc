"""Sharded checkpoints: every rank writes and reads its shards. Another number of ranks can read them, too.

`rl.checkpoint` renames the folder once all ranks have written, so a checkpoint is complete or absent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.staging import AsyncStager
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, distribute_tensor, zeros

from configs.errors import UserError
from rl.checkpoint import note_checksums
from rl.distributed.fsdp import shard_placements
from rl.distributed.sharded_muon import ShardedMuonWithAdamW
from rl.learner.parallel import FinishCheckpoint, staged_copy
from rl.safe_load import PlainReader, load_state

_REST = "rest.pt"  # what is no tensor: positions of schedules, counters, an optimizer's settings
_BUFFERS = ("e_score_correction_bias", "inv_freq")


@dataclass(frozen=True, slots=True)
class _Tensor:
    """Replaces a tensor in the state; the tensor is `sharded` over its first dimension, or whole on every rank."""

    key: str
    sharded: bool


class _Stager(AsyncStager):
    """Copies a state to CPU memory for `async_save`. PyTorch's own stagers cannot copy 8-bit moments."""

    _synchronize_after_execute = False

    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        return staged_copy(state_dict)

    def synchronize_staging(self) -> None:
        """Nothing to wait for: `stage` copies at once."""

    def close(self) -> None:
        """Nothing to release."""


def write_shards(folder: Path, state: Mapping[str, Any], *, group: dist.ProcessGroup) -> FinishCheckpoint:
    """Copy `state` (nested dicts and lists) and begin to write it into `folder`, fsynced. All ranks must call it.

    The ranks agree on who writes what over `group`, while training uses others. What is returned waits for this rank's
    files, in any thread, and for no other rank.
    """
    tensors, rest = _take_apart(state)
    written: Any = state_dict_saver.async_save(
        tensors,
        storage_writer=FileSystemWriter(folder, sync_files=True),
        process_group=group,
        async_stager=_Stager(),
    )

    def finish() -> None:
        written.result()
        rank = dist.get_rank(group)
        files = list(folder.glob(f"__{rank}_*"))
        if rank == 0:
            with (folder / _REST).open("wb") as file:
                torch.save(rest, file)
                file.flush()
                os.fsync(file.fileno())
            files += [folder / _REST, folder / ".metadata"]
        note_checksums(folder, rank, files)

    return finish


def read_shards(folder: Path, *, mesh: DeviceMesh) -> dict[str, Any]:
    """The state in `folder`, with shards for this mesh. All ranks must call it."""
    rest = load_state(folder / _REST, types=[_Tensor])
    sharded = {tensor.key for tensor in _tensors(rest) if tensor.sharded}
    reader = PlainReader(folder)
    found: dict[str, Any] = {}
    for key, saved in reader.read_metadata().state_dict_metadata.items():
        size, dtype = saved.size, saved.properties.dtype  # pyright: ignore[reportAttributeAccessIssue]
        if key in sharded:
            found[key] = zeros(size, dtype=dtype, device_mesh=mesh, placements=shard_placements(mesh))
        else:
            found[key] = torch.zeros(size, dtype=dtype)
    state_dict_loader.load(found, storage_reader=reader)
    return _put_together(found, rest)


def cut_state(state: dict[str, Any], optimizer: torch.optim.Optimizer, mesh: DeviceMesh) -> dict[str, Any]:
    """This rank's part of the state of a learner in one process; `optimizer` is the sharded policy's.

    Raises UserError for 8-bit moments: their blocks go across rows.
    """
    if (critic := state["critic"]) is not None:
        critic = critic | {
            "head": _cut_model(critic["head"], mesh),
            "backbone": _cut_model(critic["backbone"], mesh),
            "optimizer": _cut_optimizer(critic["optimizer"], mesh),
        }
    if (reference := state["reference"]) is not None:
        reference = {name: _cut_model(part, mesh) for name, part in reference.items()}
    policy = state["optimizer"]
    if isinstance(optimizer, ShardedMuonWithAdamW):
        policy = {name: _cut_optimizer(part, mesh) for name, part in optimizer.of_views(policy).items()}
    else:
        policy = _cut_optimizer(policy, mesh)
    model = _cut_model(state["model"], mesh)
    return state | {"model": model, "optimizer": policy, "reference": reference, "critic": critic}


def _cut_model(state: Mapping[str, torch.Tensor] | None, mesh: DeviceMesh) -> dict[str, torch.Tensor] | None:
    """A whole model's state dict with its weights sharded; buffers stay whole."""
    if state is None:
        return None
    return {name: tensor if name.endswith(_BUFFERS) else _cut(tensor, mesh) for name, tensor in state.items()}


def _cut_optimizer(state: Mapping[str, Any], mesh: DeviceMesh) -> dict[str, Any]:
    """A plain optimizer's state dict with every tensor sharded that has a dimension, such as moments."""
    if any(hasattr(value, "tensor_attrs") for values in state["state"].values() for value in values.values()):
        raise UserError(
            "rl.optimizer.state = '8bit': the 8-bit moments of a checkpoint that one process wrote cannot be cut for "
            "ranks. Go on with rl.ranks.count = 1, or start again in another output_dir"
        )
    inner = {
        index: {name: _cut(value, mesh) if value.ndim else value for name, value in values.items()}
        for index, values in state["state"].items()
    }
    return {"state": inner, "param_groups": state["param_groups"]}


def _cut(tensor: torch.Tensor, mesh: DeviceMesh) -> torch.Tensor:
    """This rank's shard as a copy: a view would keep the whole tensor in memory."""
    return distribute_tensor(tensor.to(mesh.device_type), mesh, shard_placements(mesh), src_data_rank=None).clone()


def _take_apart(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], Any]:
    """The tensors of nested dicts and lists under flat keys, and the state with a `_Tensor` in place of each."""
    tensors: dict[str, torch.Tensor] = {}

    def strip(value: Any, key: str) -> Any:
        if isinstance(value, torch.Tensor):
            tensors[key] = value
            return _Tensor(key, isinstance(value, DTensor))
        if isinstance(value, Mapping):
            return {name: strip(inner, f"{key}/{name}") for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(strip(inner, f"{key}/{i}") for i, inner in enumerate(value))
        return value

    return tensors, strip(state, "")


def _put_together(tensors: Mapping[str, torch.Tensor], rest: Any) -> Any:
    if isinstance(rest, _Tensor):
        return tensors[rest.key]
    if isinstance(rest, dict):
        return {name: _put_together(tensors, inner) for name, inner in rest.items()}
    if isinstance(rest, list | tuple):
        return type(rest)(_put_together(tensors, inner) for inner in rest)
    return rest


def _tensors(rest: Any) -> list[_Tensor]:
    if isinstance(rest, _Tensor):
        return [rest]
    inner = rest.values() if isinstance(rest, dict) else rest if isinstance(rest, list | tuple) else ()
    return [tensor for value in inner for tensor in _tensors(value)]
