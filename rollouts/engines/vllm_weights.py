"""New weights for a vLLM that runs: our names to the hub's, through shared memory into vLLM's own update calls.

vLLM's weight-transfer interface takes tensors under the checkpoint's names between `start_weight_update` and
`finish_weight_update`, bucket by bucket, and packs each layer into its own layout once it is complete. Its `nccl` and
`ipc` backends move GPU memory. The one here passes tensors that lie in Ray's object store, or a safetensors file in
shared memory where vLLM has processes of its own.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from vllm.distributed.weight_transfer import (  # pyright: ignore[reportMissingImports]
    WeightTransferEngine,
    WeightTransferEngineFactory,
)
from vllm.distributed.weight_transfer.base import (  # pyright: ignore[reportMissingImports]
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.model_executor.model_loader.reload import (  # pyright: ignore[reportMissingImports]
    finalize_layerwise_reload,
    initialize_layerwise_reload,
)

from rollouts.engines import vllm_cpu
from rollouts.model_family import family_at
from rollouts.weight_stream import Shapes

BACKEND = "thinkvl_shared_memory"


class Names:
    """Which tensors a checkpoint's model has, in our names and shapes, and how they are called on the hub."""

    def __init__(self, folder: str) -> None:
        self._family = family_at(folder)
        with torch.device("meta"):
            self._model = self._family.new_model(self._family.load_config(folder))
        self._shapes = {name: tuple(tensor.shape) for name, tensor in self._model.state_dict().items()}

    @property
    def shapes(self) -> Shapes:
        """The shape of every tensor, under our names."""
        return self._shapes

    def to_hub(self, weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Some of the tensors under the hub's names and in its layout."""
        return self._family.hub_names(self._model, weights)


def start(engine: Any) -> None:
    """Prepare a `LLMEngine` for new weights."""
    engine.collective_rpc("start_weight_update")


def send(engine: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Give a `LLMEngine` some tensors under the hub's names.

    Where vLLM runs in this process it gets the tensors themselves, else a file in shared memory.
    """
    if engine.vllm_config.parallel_config.world_size == 1:
        engine.collective_rpc("update_weights", kwargs={"update_info": {"tensors": tensors}})
        return
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="thinkvl-weights-", dir=memory) as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
        engine.collective_rpc("update_weights", kwargs={"update_info": {"path": str(path)}})


def finish(engine: Any) -> None:
    """Have a `LLMEngine` serve what it was sent since `start`, from its next step on."""
    engine.collective_rpc("finish_weight_update")


@dataclass
class Nothing(WeightTransferInitInfo):
    """Memory that is shared needs no introduction."""


@dataclass
class Where(WeightTransferUpdateInfo):
    """The tensors to load, or the file that has them."""

    path: str | None = None
    tensors: Mapping[str, torch.Tensor] | None = None


class SharedMemoryTransfer(WeightTransferEngine):
    """The receiving side, in each process that holds a part of the model."""

    init_info_cls = Nothing
    update_info_cls = Where

    def init_transfer_engine(self, init_info: Nothing) -> None:
        """Nothing to connect."""

    def start_weight_update(self) -> None:
        """Bring the layers back to the checkpoint's layout."""
        vllm_cpu.forget_packed_experts(self.model)
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: Where) -> None:
        """Load the tensors."""
        if update_info.tensors is not None:
            self.model.load_weights(update_info.tensors.items())
            return
        assert update_info.path is not None
        with safe_open(update_info.path, framework="pt") as file:
            self.model.load_weights((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118

    def finish_weight_update(self) -> None:
        """Pack the layers again."""
        finalize_layerwise_reload(self.model, self.model_config)

    def shutdown(self) -> None:
        """Nothing to free."""


class WorkerExtension:
    """Named in `worker_extension_cls`: a vLLM worker process that imports it knows our model family and the backend."""


def register() -> None:
    """Make the backend known in this process; calling it twice does no harm."""
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryTransfer)


register()
