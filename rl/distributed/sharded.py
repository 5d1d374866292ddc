"""A learner's work spread over the ranks of a mesh: FSDP2 shards, a share of each step, sharded checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from configs.optimizer import OptimizerConfig
from rl.distributed.fsdp import (
    gather_merged,
    reduce_between_replicas,
    shard,
    shard_whole,
    sharded_logprobs,
    whole_tree,
)
from rl.distributed.image_shares import share_of_images
from rl.distributed.one_reader import give_memory, receive, tensors_of
from rl.distributed.sequence_parallel import join, split, use_sequence_parallel
from rl.distributed.sharded_checkpoint import cut_state, read_shards, write_shards
from rl.distributed.sharded_muon import ShardedMuonWithAdamW
from rl.learner.balanced_shares import balanced_shares
from rl.learner.batch import ImageSet, Packable
from rl.learner.lora import Cast, adapter_experts, as_it_is
from rl.learner.optimizer import build_optimizer
from rl.learner.parallel import FinishCheckpoint
from rl.types import DummySample, PromptCompletion, SampleHeader
from rollouts.model_family import VisionLanguageConfig, VisionLanguageModel

T = TypeVar("T")


def mesh_of_one(device: torch.device) -> DeviceMesh:
    """A mesh of this process alone, which needs no other process and no port."""
    if not dist.is_initialized():
        store = dist.HashStore()  # pyright: ignore[reportPrivateImportUsage]
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", store=store, rank=0, world_size=1
        )
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return init_device_mesh(device.type, (1,))


class Sharded:
    """One rank's `rl.learner.parallel.Parallel`: models sharded over the last dimension of `mesh`, which has all ranks.

    With two dimensions the first are replicas of the shards. Each `sequence` ranks in a row work on one packed row.
    With `compute_dtype` forward and backward passes run in it, on weights that keep their type. With `one_reader` the
    models of the first rank alone have weights, see `rl.distributed.one_reader`. `fetch` gets the samples that headers
    stand for; without it, the samples of a step are here.
    """

    def __init__(
        self,
        mesh: DeviceMesh,
        *,
        compute_dtype: torch.dtype | None = None,
        sequence: int = 1,
        one_reader: bool = False,
        fetch: Callable[[Sequence[SampleHeader]], list[PromptCompletion]] | None = None,
    ) -> None:
        self._mesh, self._compute_dtype, self._one_reader = mesh, compute_dtype, one_reader
        self._rank, self._sequence = dist.get_rank(), sequence
        self._fetch = fetch
        self._row: Any = None  # the group of the ranks that work on the same rows
        if sequence > 1:
            groups = [dist.new_group(range(at, at + sequence)) for at in range(0, mesh.size(), sequence)]
            self._row = groups[self._rank // sequence]
        self._modules: list[nn.Module] = []  # all that are sharded
        self._files: Any = None  # the group over which checkpoints are written

    @property
    def threads(self) -> int:
        """One: the collectives of two micro-batches must not mix."""
        return 1

    def shard_model(self, model: VisionLanguageModel) -> None:
        """Shard a model in place and move it to the mesh's device."""
        if self._sequence > 1:
            use_sequence_parallel(model.text_model, self._row)
        with self._weights_of_first_rank(model):
            shard(model, self._mesh, compute_dtype=self._compute_dtype)
        self._modules.append(model)

    def shard_head(self, head: nn.Module) -> None:
        """Shard a small module as one unit, computed in its own type."""
        with self._weights_of_first_rank(head):
            shard_whole(head, self._mesh, alike=self._sequence)
        self._modules.append(head)

    @contextmanager
    def _weights_of_first_rank(self, module: nn.Module) -> Iterator[None]:
        """A context that shards `module`; at its end the shards are those of the first rank's weights."""
        if not self._one_reader:
            yield
            return
        whole = tensors_of(module) if self._rank == 0 else {}
        give_memory(module, whole)
        yield
        receive(module, whole, self._mesh)

    def build_optimizer(self, model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
        """`rl.learner.optimizer.build_optimizer`, with Muon for matrices that are shards."""
        if config.name == "muon":
            return ShardedMuonWithAdamW(model.named_parameters(), config, adapter_experts(model))
        return build_optimizer(model, config)

    def plan(
        self, samples: Sequence[Packable], config: VisionLanguageConfig, *, budget: int, dummy: DummySample
    ) -> tuple[Sequence[Sequence[Any]], ImageSet | None]:
        """This rank's micro-batches, as many as any rank has; and its images, in as many parts as any rank's."""
        shares = balanced_shares(samples, ranks=self._mesh.size() // self._sequence, budget=budget)
        share = shares[self._rank // self._sequence]
        whole = iter(self.whole([sample for part in share for sample in part]))
        own = [[next(whole) for _ in part] for part in share]
        missing = max(map(len, shares)) - len(share)
        return [*own, *[[dummy]] * missing], share_of_images(shares, own, config, budget=budget)

    def whole(self, samples: Sequence[Packable]) -> Sequence[Any]:
        """The samples themselves, where headers stand for them."""
        headers = [sample for sample in samples if isinstance(sample, SampleHeader)]
        if not headers:
            return samples
        assert self._fetch is not None, "headers, and nothing that gets what they stand for"
        return self._fetch(headers)

    def before_backward(self, *, last: bool) -> None:
        """Gradients are summed between replicas in the last micro-batch alone."""
        if self._mesh.ndim > 1:
            for module in self._modules:
                reduce_between_replicas(module, last)

    def token_logprobs(
        self,
        model: VisionLanguageModel,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        barred: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `rl.distributed.fsdp.sharded_logprobs`."""
        targets = targets.to(hidden.device)
        if self._sequence == 1:
            return sharded_logprobs(model, hidden, targets, temperature=temperature, barred=barred)
        parts = split(hidden, self._row), split(targets, self._row)
        found = sharded_logprobs(model, *parts, temperature=temperature, barred=barred)
        logprobs, entropy = (join(part, self._row)[: len(targets)] for part in found)
        return logprobs, entropy

    def exchange(self, value: T) -> list[T]:
        """Each rank's value, by rank, but one of the ranks that work on the same rows. Values are pickled."""
        every: list[Any] = [None] * self._mesh.size()
        dist.all_gather_object(every, value)
        return every[:: self._sequence]

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """A nested state dict, whole on the CPU of the first rank; on the others None stands for each tensor."""
        return whole_tree(state, keep=self._rank == 0)

    def merged_weights(self, model: nn.Module, cast: Cast = as_it_is) -> Iterator[tuple[str, torch.Tensor]]:
        """See `rl.distributed.fsdp.gather_merged`; the first rank keeps the tensors."""
        return gather_merged(model, cast, keep=self._rank == 0)

    def on_first(self, write: Callable[[], object]) -> None:
        """Call `write` on the first rank. The others do not wait: a collective would time out on a long write."""
        if self._rank == 0:
            write()

    def write_checkpoint(self, folder: Path, state: dict[str, Any]) -> FinishCheckpoint:
        """See `rl.distributed.sharded_checkpoint.write_shards`."""
        if self._files is None:  # a group of its own: collectives of a background write must not meet training's
            self._files = dist.new_group(backend="gloo")
        return write_shards(folder, state, group=self._files)

    def read_checkpoint(
        self, folder: Path, state: dict[str, Any] | None, optimizer: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """The shards that any number of ranks wrote into `folder`, or the whole `state` of a single process, cut.

        Raises UserError where `state` holds 8-bit moments.
        """
        return read_shards(folder, mesh=self._mesh) if state is None else cut_state(state, optimizer, self._mesh)
