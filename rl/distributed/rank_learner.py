"""One rank of a learner on several: the same `Learner`, on its share of each step, with sharded weights.

Every rank calls the same methods with the same arguments, and gets the same results; what each does alone is its part
of the forward and backward passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh

from rl.distributed.fsdp import gather, gather_adapters, rebind, shard, shard_whole, sharded_logprobs, whole_tree
from rl.distributed.shard_batch import filler, shard_batch, share_of_images
from rl.distributed.sharded_checkpoint import cut_model, cut_optimizer, read_shards, write_shards
from rl.distributed.sharded_muon import ShardedMuonWithAdamW
from rl.learner.batch import ImageSet, Packable
from rl.learner.forward import EncodedImages
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.learner.lora import adapter_experts, save_adapters
from rl.learner.optimizer import build_schedule
from rl.learner.skipped_updates import OnSkip, SkippedUpdate
from rl.learner.step_statistics import StepStatistics
from rl.types import PackedRow, PromptCompletion, Sample, StepBatch
from rollouts.model_family import VisionLanguageModel

T = TypeVar("T")


class RankLearner(Learner):
    """A learner whose models are sharded over `mesh`, one rank of it.

    `model` is the whole policy, the same on every rank; it is sharded in place and moved to the mesh's device.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        config: LearnerConfig,
        *,
        barred_ids: Sequence[int],
        mesh: DeviceMesh,
        compute_dtype: torch.dtype | None = None,
        on_skip: OnSkip | None = None,
    ) -> None:
        super().__init__(model, config, barred_ids=barred_ids, on_skip=on_skip)
        self.mesh = mesh
        shard(self.model, mesh, compute_dtype=compute_dtype)
        self._shard_reference_and_critic(compute_dtype)
        self._barred = self._barred.to(self.model.device)
        self._filler = filler(int((~self._barred).nonzero()[0]), (), self.model.config)
        self.optimizer, self.schedule = self._new_optimizer()

    def _shard_reference_and_critic(self, compute_dtype: torch.dtype | None) -> None:
        if self.reference is not None:
            shard(self.reference.model, self.mesh, compute_dtype=compute_dtype)
        critic = self.critic
        if critic is None:
            return
        modules = {"head": critic.head} | ({} if critic.backbone is None else {"backbone": critic.backbone})
        names = {id(p): f"{part}.{n}" for part, m in modules.items() for n, p in m.named_parameters()}
        shard_whole(critic.head, self.mesh)
        if critic.backbone is not None:
            shard(critic.backbone, self.mesh, compute_dtype=compute_dtype)
        named = {f"{part}.{n}": p for part, m in modules.items() for n, p in m.named_parameters()}
        rebind(critic.optimizer, names, named)

    def _new_optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        if self.config.optimizer.name != "muon" or not hasattr(self, "mesh"):
            return super()._new_optimizer()
        optimizer = ShardedMuonWithAdamW(
            self.model.named_parameters(), self.config.optimizer, adapter_experts(self.model)
        )
        return optimizer, build_schedule(optimizer, self.config.optimizer, total=self.config.policy_steps)

    # This rank's share

    def _plan(self, samples: Sequence[Packable]) -> tuple[list[list[Packable]], ImageSet | None]:
        """This rank's micro-batches, as many as any rank has; and its images, in as many parts as any rank's."""
        budget = self.config.micro_batch_tokens
        shares = shard_batch(samples, ranks=self.mesh.size(), budget=budget)
        own = shares[self.mesh.get_local_rank()]
        images = share_of_images(shares, self.mesh.get_local_rank(), self.model.config, budget=budget)
        if samples:
            columns = samples[0].columns if isinstance(samples[0], Sample) else ()
            self._filler = filler(int(self._filler.token_ids[0]), columns, self.model.config)
        missing = max(len(share) for share in shares) - len(own)
        return own + [[cast(Packable, self._filler)]] * missing, images

    def _add_gradient(
        self,
        part: Sequence[Sample],
        images: ImageSet | None,
        encoded: EncodedImages,
        batch: StepBatch,
        statistics: StepStatistics,
        *,
        weight: float = 1.0,
    ) -> None:
        if part[0] is self._filler:
            statistics, weight = StepStatistics(), 0.0
        super()._add_gradient(part, images, encoded, batch, statistics, weight=weight)

    def _total(self, statistics: StepStatistics) -> StepStatistics:
        return StepStatistics.total(self._exchange(statistics))

    def _in_order(self, samples: Sequence[PromptCompletion], found: Mapping[str, T]) -> list[T]:
        own = {i: found[sample.id] for i, sample in enumerate(samples) if sample.id in found}
        merged = {i: value for part in self._exchange(own) for i, value in part.items()}
        return [merged[i] for i in range(len(samples))]

    def _exchange(self, value: T) -> list[T]:
        """Everybody's value, by rank."""
        every: list[Any] = [None] * self.mesh.size()
        dist.all_gather_object(every, value, group=self.mesh.get_group())
        return every

    def _head(
        self, model: VisionLanguageModel, hidden: torch.Tensor, row: PackedRow
    ) -> tuple[torch.Tensor, torch.Tensor]:
        targets = row.targets.to(hidden.device)
        return sharded_logprobs(model, hidden, targets, temperature=self.config.temperature, barred=self._barred)

    def _skipped(self, batch: StepBatch, number: int, random: dict[str, Any], figures: dict[str, Any]) -> SkippedUpdate:
        """With whole tensors on the first rank, which one process can replay; all ranks must ask."""
        shards = super()._skipped(batch, number, random, figures)
        first = self._first
        return replace(
            shards, weights=whole_tree(shards.weights, keep=first), critic=whole_tree(shards.critic, keep=first)
        )

    # Checkpoints

    def write_checkpoint(self, folder: Path) -> None:
        """Write everything into `folder`, each rank its shards. All must call it."""
        write_shards(folder, self.state_dict(), mesh=self.mesh)

    def read_checkpoint(self, folder: Path, state: dict[str, Any] | None = None) -> None:
        """Restore the shards that any number of ranks wrote into `folder`, or the whole `state` of a plain learner."""
        self.load_state_dict(read_shards(folder, mesh=self.mesh) if state is None else self._cut(state))

    def _cut(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of a learner in one process, sharded as this one's."""
        if (critic := state["critic"]) is not None:
            critic = critic | {
                "head": cut_model(critic["head"], self.mesh),
                "backbone": cut_model(critic["backbone"], self.mesh),
                "optimizer": cut_optimizer(critic["optimizer"], self.mesh),
            }
        optimizer = state["optimizer"]
        if isinstance(self.optimizer, ShardedMuonWithAdamW):
            optimizer = self.optimizer.of_views(optimizer)
            optimizer = {name: cut_optimizer(part, self.mesh) for name, part in optimizer.items()}
        else:
            optimizer = cut_optimizer(optimizer, self.mesh)
        if (reference := state["reference"]) is not None:
            reference = {name: cut_model(part, self.mesh) for name, part in reference.items()}
        return state | {
            "model": cut_model(state["model"], self.mesh),
            "optimizer": optimizer,
            "reference": reference,
            "critic": critic,
        }

    # Whole weights, on the first rank

    def weights(self) -> dict[str, np.ndarray]:
        """The policy's whole weights, adapters merged, on the first rank; nothing on the others. All must call it."""
        return {name: (t.float() if t.dtype == torch.bfloat16 else t).numpy() for name, t in self._gathered().items()}

    def save(self, folder: Path) -> None:
        """Write the policy, adapters merged, as a model's folder, from the first rank. All must call it."""
        state = self._gathered()
        if self._first:
            self.model.save_pretrained(folder, state_dict=state)
        dist.barrier(self.mesh.get_group())

    def save_adapters(self, folder: Path) -> None:
        """Write the adapters alone, if there are any, from the first rank. All must call it."""
        state = gather_adapters(self.model, keep=self._first)
        if self._first:
            save_adapters(self.model, folder, state)
        dist.barrier(self.mesh.get_group())

    @property
    def _first(self) -> bool:
        return self.mesh.get_local_rank() == 0

    def _gathered(self) -> dict[str, torch.Tensor]:
        return gather(self.model, keep=self._first)
