"""The learner of a run on several ranks: one Ray actor per rank, each with a `Learner`.

Ranks communicate by gloo, on GPUs by NCCL. They read the model folder and write checkpoints, so every rank needs
access to the run's folder.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
import torch.distributed as dist
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError
from ray.util.placement_group import remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch.distributed.device_mesh import init_device_mesh

from configs.errors import UserError
from configs.model import ModelConfig
from configs.ranks import RanksConfig
from rl.distributed.one_reader import open_on_rank
from rl.distributed.rank_room import in_order, reserve_ranks
from rl.distributed.remote_samples import RemoteSamples, fetch_samples
from rl.distributed.sharded import Sharded
from rl.distributed.weights_of_ranks import BUCKETS_AHEAD, weights_of_ranks
from rl.learner.base import BaseLearner
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.lora import prepare_training
from rl.learner.model_outputs import outputs_of_groups, sampled_completions
from rl.learner.parallel import FinishCheckpoint
from rl.learner.skipped_updates import SkippedUpdates
from rl.learner.supervised_learner import SupervisedLearner, SupervisedLearnerConfig
from rl.types import ModelOutputs, PromptCompletion, SampleHeader
from rollouts.resource_use import ProcessUse
from rollouts.types import Group
from rollouts.weight_stream import WeightStream

BLAME_SECONDS = 10.0  # wait after the first error: the ranks that lost a dead rank may report before it does


class LostRank(UserError):
    """A rank of the learner died, and the others were ended. The newest checkpoint is intact."""

    def __init__(self, rank: int, count: int) -> None:
        super().__init__(
            f"learner rank {rank} of {count} died, and the others cannot go on without it. The newest checkpoint "
            "is intact: the same command continues the run. If it was memory, lower rl.micro_batch_tokens, set "
            "model.gradient_checkpointing, or raise rl.ranks.count"
        )
        self.rank, self.count = rank, count


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSpec:
    """What a rank needs to build its learner."""

    model_path: str
    model: ModelConfig
    ranks: RanksConfig
    learner: LearnerConfig | SupervisedLearnerConfig
    barred_ids: tuple[int, ...]
    random: torch.Tensor  # state of torch's generator, so that new adapters are alike on every rank
    skipped: SkippedUpdates | None  # in RL, where optimizer steps that are refused are kept
    threads: int = 1


class RankActor:
    """One rank in a process of its own."""

    def address(self) -> tuple[str, int]:
        """Host and port where the other ranks can join this one: the interface that Ray uses, and no other."""
        host = ray.util.get_node_ip_address()
        self._listener = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        return host, self._listener.getsockname()[1]

    def seat(self) -> tuple[str, tuple[int, ...]]:
        """Ray's id of the node, and this rank's GPU there."""
        return ray.get_runtime_context().get_node_id(), tuple(int(gpu) for gpu in ray.get_gpu_ids())

    def join(self, address: tuple[str, int], rank: int, world: int, spec: RankSpec) -> None:
        """Join the group and build this rank's learner, from the weights that the first rank reads."""
        torch.set_num_threads(spec.threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
        if address[0] == "127.0.0.1" and sys.platform == "linux":  # a private Ray
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        with self._listener:
            listener = self._listener.detach() if rank == 0 else None
            store = dist.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
                *address, world, is_master=rank == 0, master_listen_fd=listener
            )
        dist.init_process_group(backend, store=store, rank=rank, world_size=world)
        replicas = spec.ranks.replicas
        shape = (world,) if replicas == 1 else (replicas, world // replicas)
        mesh = init_device_mesh(device, shape, mesh_dim_names=("replica", "shard")[-len(shape) :])
        compute_dtype = getattr(torch, spec.ranks.compute_dtype) if spec.ranks.compute_dtype else None
        parallel = Sharded(
            mesh, compute_dtype=compute_dtype, sequence=spec.ranks.sequence, one_reader=True, fetch=fetch_samples
        )
        self.learner, self._sequence = _build(spec, parallel), spec.ranks.sequence

    def begin_checkpoint(self, folder: Path) -> None:
        """Copy this rank's shards, and begin to write them into `folder`."""
        self._finish = self.learner.write_checkpoint(folder)

    @ray.method(concurrency_group="files")
    def finish_checkpoint(self) -> None:
        """Wait until this rank's shards are written, while other calls go on."""
        self._finish()

    def call(self, method: str, *args: Any) -> Any:
        """Call a method of the learner. The first rank returns (result, version), the others None."""
        result = getattr(self.learner, method)(*args)
        return (result, self.learner.version) if dist.get_rank() == 0 else None

    def own_outputs(self, samples: Sequence[SampleHeader]) -> dict[str, ModelOutputs]:
        """See `Learner.own_outputs`. Of the ranks that work on the same rows the first answers."""
        assert isinstance(self.learner, Learner)
        found = self.learner.own_outputs(samples)
        return {} if dist.get_rank() % self._sequence else found

    @ray.method(num_returns="streaming", _generator_backpressure_num_objects=2 * BUCKETS_AHEAD)
    def stream_weights(self, dtype: str | None) -> Iterator[Any]:
        """The learner's weights: on the first rank shapes, then data and tensors of each bucket; on others nothing."""
        stream = self.learner.weight_stream(dtype)
        if dist.get_rank() == 0:
            yield stream.shapes
        for bucket in stream.buckets:
            yield list(bucket.data)
            yield bucket.tensors
            del bucket  # or it would stay while the next is gathered


class LearnerGroup:
    """The actors of all ranks, as one learner of `rl.learner.protocol`. Close it at the end.

    If a rank dies, the call raises LostRank and ends all ranks. The newest checkpoint stays intact.
    """

    def __init__(self, spec: RankSpec, nodes: Sequence[str] = ()) -> None:
        self.version, ranks = 0, spec.ranks.count
        self._samples = RemoteSamples()
        self._reads_before_update = isinstance(spec.learner, LearnerConfig) and spec.learner.reads_before_update
        self._room = reserve_ranks(ranks, nodes)
        self._actors: list[Any] = []
        remote: Any = ray.remote
        actor = remote(concurrency_groups={"files": 1})(RankActor)
        for i, bundle in enumerate(self._room.bundle_specs):
            strategy = PlacementGroupSchedulingStrategy(self._room, placement_group_bundle_index=i)
            options = {"num_cpus": 1, "num_gpus": bundle.get("GPU", 0.0), "max_restarts": 0}
            self._actors.append(actor.options(**options, scheduling_strategy=strategy).remote())
        self._actors = in_order(self._actors, self._wait([actor.seat.remote() for actor in self._actors]))
        [address, *_] = self._wait([actor.address.remote() for actor in self._actors])
        self._wait([actor.join.remote(address, i, ranks, spec) for i, actor in enumerate(self._actors)])

    def model_outputs(self, groups: Sequence[Group], min_version: int = 0) -> list[list[ModelOutputs]]:
        """See `Learner.model_outputs`. Nothing is sent to the ranks where the algorithm reads nothing."""
        if not self._reads_before_update:
            return [[ModelOutputs() for _ in group.rollouts] for group in groups]
        masks, samples = sampled_completions(groups, min_version)
        headers = ray.put(self._samples.put(samples))
        parts = self._wait([actor.own_outputs.remote(headers) for actor in self._actors])
        return outputs_of_groups(groups, masks, parts)

    def logprobs(self, completions: Sequence[PromptCompletion]) -> list[np.ndarray]:
        """See `Learner.logprobs`."""
        return self._call("logprobs", list(completions))

    def update(self, samples: Sequence[PromptCompletion], /) -> dict[str, float]:
        """See `update` of the learner."""
        metrics = self._call("update", self._samples.put(samples))
        self._samples.forget()
        return metrics

    def resource_use(self) -> list[ProcessUse]:
        """See `Learner.resource_use`."""
        return self._call("resource_use")

    def weight_stream(self, dtype: str | None = None) -> WeightStream:
        """See `Learner.weight_stream`."""
        return weights_of_ranks(self._actors, dtype, wait=self._wait)

    def save(self, folder: Path) -> None:
        """See `Learner.save`."""
        self._call("save", folder.resolve())

    def save_adapters(self, folder: Path) -> None:
        """See `Learner.save_adapters`."""
        self._call("save_adapters", folder.resolve())

    def write_checkpoint(self, folder: Path) -> FinishCheckpoint:
        """Each rank copies its shards and begins to write them into `folder`; what was left there is deleted first."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._wait([actor.begin_checkpoint.remote(folder.resolve()) for actor in self._actors])
        written = [actor.finish_checkpoint.remote() for actor in self._actors]

        def finish() -> None:  # in another thread: the ranks are left alone, since they may be in an update
            ray.wait(written, num_returns=len(written))
            if errors := {rank: error for rank, future in enumerate(written) if (error := _error(future)) is not None}:
                raise _blame(errors, len(written))

        return finish

    def read_checkpoint(self, folder: Path, state: dict[str, Any] | None) -> None:
        """See `Learner.read_checkpoint`."""
        self._call("read_checkpoint", folder.resolve(), state)

    def close(self) -> None:
        """End the ranks, and give their room back."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
        remove_placement_group(self._room)

    def _call(self, method: str, *args: Any) -> Any:
        """Call every rank at once and return the first rank's result. Arguments are sent once per node."""
        shared = [ray.put(arg) for arg in args]
        result, self.version = self._wait([actor.call.remote(method, *shared) for actor in self._actors])[0]
        return result

    def _wait(self, futures: list[Any]) -> list[Any]:
        """Every rank's result. If a rank fails, all ranks are ended and the error of the rank at fault is raised."""
        left = list(futures)
        while left:
            done, left = ray.wait(left, num_returns=1)
            if _error(done[0]) is not None:
                if left:
                    ray.wait(left, num_returns=len(left), timeout=BLAME_SECONDS)
                late, _ = ray.wait(futures, num_returns=len(futures), timeout=0)
                errors = {futures.index(f): e for f in late if (e := _error(f)) is not None}
                self.close()
                raise _blame(errors, len(futures))
        return ray.get(futures)


def _build(spec: RankSpec, parallel: Sharded) -> BaseLearner:
    model = open_on_rank(spec.model_path, dtype=getattr(torch, spec.model.dtype))
    torch.set_rng_state(spec.random)
    prepare_training(model, spec.model, base=spec.model_path)
    if isinstance(spec.learner, SupervisedLearnerConfig):
        return SupervisedLearner(model, spec.learner, parallel=parallel)
    on_skip = spec.skipped.keep if spec.skipped is not None else None
    return Learner(model, spec.learner, barred_ids=spec.barred_ids, on_skip=on_skip, parallel=parallel)


def _error(future: Any) -> BaseException | None:
    try:
        ray.get(future)
    except RayError as error:
        return error
    return None


def _blame(errors: dict[int, BaseException], ranks: int) -> BaseException:
    """The error to raise: the death of a rank, else a UserError, else that of the lowest rank."""
    for rank, error in sorted(errors.items()):
        if isinstance(error, RayActorError | OutOfMemoryError):
            return LostRank(rank, ranks)
    for _, error in sorted(errors.items()):
        if isinstance(error, RayTaskError) and isinstance(error.cause, UserError):
            return UserError(str(error.cause))
    return errors[min(errors)]
