"""What the learners of RL and of supervised stages share: a model, its optimizer, its schedule, and their state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from configs.optimizer import OptimizerConfig
from rl.learner.batch import ImageSet, Packable, dummy_sample
from rl.learner.gradient_sums import GradientSums
from rl.learner.lora import adapter_state, save_adapters, to_arrays
from rl.learner.micro_batch_threads import add_gradients
from rl.learner.optimizer import advance, build_schedule, clip_gradients, set_learning_rate
from rl.learner.packed_attention import use_packed_attention
from rl.learner.parallel import FinishCheckpoint, Parallel
from rl.learner.skipped_updates import SpikeGuard
from rl.learner.trained_state import load_trained_state, trained_state
from rl.learner.weight_stream import weight_stream
from rollouts.engines.sampling import barred_token_mask
from rollouts.model_family import VisionLanguageModel
from rollouts.resource_use import ProcessUse, process_use
from rollouts.weight_stream import WeightStream

Part = TypeVar("Part")
Statistics = TypeVar("Statistics")


@dataclass(frozen=True, slots=True, kw_only=True)
class AppliedGradient:
    """What became of the gradient of one optimizer step."""

    norm: float  # before clipping; 0 where the step was not made
    limit: float  # the largest norm that was accepted
    refused: str | None  # why the step was not made; None where it was
    learning_rate: float


class BaseLearner:
    """A model in training on one process or several; `version` counts its updates.

    `parallel` shards `model` in place where several processes share the work; then every process has a learner, and
    all call each method together, with the same arguments. `barred_ids` have probability 0 under `temperature`.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        *,
        optimizer: OptimizerConfig,
        optimizer_steps: int,
        micro_batch_tokens: int,
        spike_threshold: float,
        parallel: Parallel,
        barred_ids: Sequence[int] = (),
        temperature: float = 1.0,
    ) -> None:
        self.model, self.parallel, self.version = model.train(), parallel, 0
        use_packed_attention(model.text_model)
        self._optimizer_config, self._optimizer_steps = optimizer, optimizer_steps
        self._guard = SpikeGuard(spike_threshold)
        parallel.shard_model(model)
        self._gradients = GradientSums(self.trained.parameters())
        self.optimizer, self.schedule = self._new_optimizer()
        barred = barred_token_mask(model.config.text_config.vocab_size, barred_ids).to(model.device)
        # A barred token has log-prob -inf, and even 0 times its gradient is not finite.
        dummy = dummy_sample(int((~barred).nonzero()[0]), model.config)
        self._budget, self._dummy = micro_batch_tokens, dummy
        self._head = partial(parallel.token_logprobs, temperature=temperature, barred=barred)

    @property
    def trained(self) -> nn.Module:
        """The module with the trained weights: the model."""
        return self.model

    def _plan(self, samples: Sequence[Packable]) -> tuple[Sequence[Sequence[Any]], ImageSet | None]:
        """This process's micro-batches of a step, and its images."""
        return self.parallel.plan(samples, self.model.config, budget=self._budget, dummy=self._dummy)

    def _add_gradients(
        self,
        parts: Sequence[Part],
        loss_of: Callable[[Part, Statistics], torch.Tensor],
        new_statistics: Callable[[], Statistics],
        others: Iterable[torch.Tensor | None],
    ) -> list[Statistics]:
        """Add the gradients of micro-batches to those of what is trained and of `others`; see `add_gradients`."""
        left = len(parts)

        def counted(part: Part, statistics: Statistics) -> torch.Tensor:
            nonlocal left
            left -= 1
            self.parallel.before_backward(last=left == 0)
            return loss_of(part, statistics)

        return add_gradients(
            parts,
            counted,
            new_statistics=new_statistics,
            leaves=[*self.trained.parameters(), *others],
            threads=self.parallel.threads,
        )

    def _new_optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """A fresh optimizer and its schedule."""
        optimizer = self.parallel.build_optimizer(self.trained, self._optimizer_config)
        return optimizer, build_schedule(optimizer, self._optimizer_config, total=self._optimizer_steps)

    def _forget_moments(self) -> None:
        """Start a fresh optimizer where the schedule stands."""
        position = self.schedule.state_dict()
        self.optimizer, self.schedule = self._new_optimizer()
        self.schedule.load_state_dict(position)
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            set_learning_rate(group, rate)

    def _apply_gradient(self) -> AppliedGradient:
        """Clip the gradient and make the optimizer step, or refuse it; the schedule moves on. Gradients stay."""
        self._gradients.finish()
        limit, learning_rate = self._guard.limit, float(self.schedule.get_last_lr()[0])
        norm = clip_gradients(self.trained.parameters(), self._optimizer_config.grad_clip)
        refused = self._guard.refuse(norm)
        if refused is None:
            self.optimizer.step()
        advance(self.schedule)
        return AppliedGradient(norm=norm, limit=limit, refused=refused, learning_rate=learning_rate)

    def _begin_update(self, seed: int) -> None:
        """Seed what an update draws, by the run's seed and the version.

        Stochastic rounding draws from generators that no checkpoint holds: a GPU's, and those of other ranks.
        """
        torch.manual_seed(int(np.random.default_rng([seed, self.version]).integers(2**62)))

    def _end_update(self) -> dict[str, float]:
        """Make the one optimizer step of an update, or refuse it, and forget the gradients. Returns its metrics.

        Raises UserError after several gradients in a row that are not finite.
        """
        applied = self._apply_gradient()
        self._guard.stop_after_many("optimizer")
        self.optimizer.zero_grad()
        self.version += 1
        return {
            "grad_norm": applied.norm,
            "learning_rate": applied.learning_rate,
            "skipped_updates": float(applied.refused is not None),
        }

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to continue exactly, but for what is frozen."""
        return {
            "model": trained_state(self.trained),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "version": self.version,
            "guard": self._guard.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        load_trained_state(self.trained, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.version = state["version"]
        self._guard.load_state_dict(state["guard"])

    def write_checkpoint(self, folder: Path) -> FinishCheckpoint:
        """Copy the state, begin to write it as shards into `folder` on several ranks, and return what waits for it."""
        return self.parallel.write_checkpoint(folder, self.state_dict())

    def read_checkpoint(self, folder: Path, state: dict[str, Any] | None) -> None:
        """Restore what `write_checkpoint` kept: its `state`, or the shards in `folder` where that is None."""
        self.load_state_dict(self.parallel.read_checkpoint(folder, state, self.optimizer))

    def resource_use(self) -> list[ProcessUse]:
        """Device and peak memory of each process of the learner."""
        return self.parallel.exchange(process_use(self.model.device))

    def weight_stream(self, dtype: str | None = None) -> WeightStream:
        """The model's weights for engines, adapters merged, in `dtype`; see `rl.learner.weight_stream`.

        Every process must exhaust the buckets before the next call. The first process has them all, the others none.
        """
        return weight_stream(self.model, dtype, merged=self.parallel.merged_weights)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the model's weights by state-dict name, adapters merged. First process only."""
        return to_arrays(self.parallel.merged_weights(self.model))

    def save(self, folder: Path) -> None:
        """Write the model, adapters merged, as a model folder."""
        state = {name: tensor.detach().cpu() for name, tensor in self.parallel.merged_weights(self.model)}
        self.parallel.on_first(lambda: self.model.save_pretrained(folder, state_dict=state))

    def save_adapters(self, folder: Path) -> None:
        """Write the adapters alone, if there are any."""
        state = self.parallel.gather(adapter_state(self.model))
        self.parallel.on_first(lambda: save_adapters(self.model, folder, state))

    def close(self) -> None:
        """Nothing to end: the learner starts no process."""
