"""The learner: scored groups in, a better policy out. A plain class; it runs without Ray."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from rl.algorithms.policy_loss import policy_loss
from rl.checkpoint import random_state
from rl.learner.batch import (
    ImageSet,
    Packable,
    collect_images,
    deal,
    loss_inputs,
    make_micro_batch,
    split_by_tokens,
)
from rl.learner.critic import build_critic
from rl.learner.forward import EncodedImages, response_hidden
from rl.learner.learner_config import LearnerConfig
from rl.learner.logprobs import token_logprobs
from rl.learner.lora import merged_state, numpy_weights, save_adapters
from rl.learner.model_outputs import OutputReader, unscored_samples
from rl.learner.optimizer import advance, build_optimizer, build_schedule, clip_gradients, set_learning_rate
from rl.learner.packed_attention import use_packed_attention
from rl.learner.reference_model import build_reference
from rl.learner.router_replay import balance_term, routing_of
from rl.learner.skipped_updates import OnSkip, SkippedUpdate, SpikeGuard
from rl.learner.step_statistics import StepStatistics
from rl.types import ModelOutputs, PackedRow, PromptCompletion, Sample, StepBatch
from rollouts.engines.sampling import barred_token_mask
from rollouts.model_family import VisionLanguageModel, family_of
from rollouts.types import Group

T = TypeVar("T")


class Learner:
    """Holds the policy, its optimizer and its schedule; `version` counts the updates that were published from it."""

    def __init__(
        self,
        model: VisionLanguageModel,
        config: LearnerConfig,
        *,
        barred_ids: Sequence[int],
        on_skip: OnSkip | None = None,
    ) -> None:
        self.model = model.train()
        use_packed_attention(model.text_model)
        self.config = config
        self.version = 0
        self._guard, self._on_skip = SpikeGuard(config.spike_threshold), on_skip
        self._barred_ids = tuple(barred_ids)
        self._barred = barred_token_mask(model.config.text_config.vocab_size, barred_ids).to(model.device)
        self.optimizer, self.schedule = self._new_optimizer()
        self.reference = build_reference(self.model, config.loss)
        self.critic = build_critic(self.model, config.loss, optimizer=config.optimizer, total_steps=config.total_steps)
        self._reader = OutputReader(
            self.model,
            self.reference,
            self.critic,
            lambda *args: self._head(*args)[0],
            wants_policy=config.reads_old_logprobs,
        )

    def _new_optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """A fresh optimizer and its schedule."""
        optimizer = build_optimizer(self.model, self.config.optimizer)
        return optimizer, build_schedule(optimizer, self.config.optimizer, total=self.config.policy_steps)

    def _forget_moments(self) -> None:
        """Start a fresh optimizer where the schedule stands."""
        position = self.schedule.state_dict()
        self.optimizer, self.schedule = self._new_optimizer()
        self.schedule.load_state_dict(position)
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            set_learning_rate(group, rate)

    def model_outputs(self, groups: Sequence[Group], min_version: int = 0) -> list[list[ModelOutputs]]:
        """What the models say of each rollout of each group before the update, as the algorithm needs it.

        Tokens that are not trained (inserted, or older than `min_version`) are context here as in the update.
        """
        masks, samples = unscored_samples(groups, min_version)
        found = iter(self._in_order(samples, self._reader.read(samples, *self._plan(samples))))
        outputs = (next(found).spread(mask) if mask.any() else ModelOutputs() for mask in masks)
        return [[next(outputs) for _ in group.rollouts] for group in groups]

    @property
    def _policy_waits(self) -> bool:
        """True while the critic is trained alone."""
        return self.critic is not None and self.critic.trains_alone

    def _plan(self, samples: Sequence[Packable]) -> tuple[list[list[Packable]], ImageSet | None]:
        """The micro-batches that this process runs of some samples, and their images."""
        budget = self.config.micro_batch_tokens
        return split_by_tokens(samples, budget=budget), collect_images(samples, self.model.config, budget=budget)

    def _in_order(self, samples: Sequence[PromptCompletion], found: Mapping[str, T]) -> list[T]:
        """What was found for each sample, by its id, as a list."""
        return [found[sample.id] for sample in samples]

    def logprobs(self, completions: Sequence[PromptCompletion]) -> list[np.ndarray]:
        """The current policy's log-probs of each completion's trainable tokens, float32; nothing is changed."""
        found = self._reader.policy_logprobs(*self._plan(completions))
        return self._in_order(completions, found)

    def update(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One iteration over `samples`: epochs x minibatches optimizer steps. Returns metrics by name.

        Samples of one prompt stay in one minibatch. Without samples nothing is trained. Whatever there was to learn,
        learning rates move on as in every iteration: they are scheduled over the run.
        """
        metrics: dict[str, list[float]] = defaultdict(list)
        if self.config.loss.reset_optimizer:
            self._forget_moments()
        rng = np.random.default_rng([self.config.seed, self.version])
        # Stochastic rounding draws from generators that no checkpoint holds: a GPU's, and those of other ranks.
        torch.manual_seed(int(np.random.default_rng([self.config.seed, self.version, 1]).integers(2**62)))
        for _ in range(self.config.epochs if samples else 0):
            for part in deal(samples, self.config.minibatches, rng):
                done = len(metrics["grad_norm"])
                batch = StepBatch(samples=tuple(part), first=done == 0)
                for name, value in self._optimizer_step(batch, number=done + 1).items():
                    metrics[name].append(value)
        if self.reference is not None:
            self.reference.follow(self.model)
        self.version += 1
        done = self.version * self.config.steps_per_iteration
        advance(self.schedule, to=done - self.config.waiting_steps)
        if self.critic is not None:
            self.critic.end_iteration(done)
        return {name: float(np.mean(values)) for name, values in metrics.items()}

    def _optimizer_step(self, batch: StepBatch, *, number: int) -> dict[str, float]:
        """The gradient of one step, clipped and applied, or refused; `number` counts from 1 within the iteration."""
        random = random_state()
        values = self.accumulate(batch)
        limit, norm, reason = self._guard.limit, 0.0, None
        learning_rate = self.schedule.get_last_lr()[0]
        if not self._policy_waits:  # else it has no gradient: no norm to remember, no weight to decay
            norm = clip_gradients(self.model.parameters(), self.config.optimizer.grad_clip)
            reason = self._guard.refuse(norm)
            if reason is None:
                self.optimizer.step()
            advance(self.schedule)
        if reason is not None and self._on_skip is not None:
            figures = {"reason": reason, "loss": values["loss"], "norm": norm, "limit": limit}
            self._on_skip(self._skipped(batch, number, random, figures))
        self._guard.stop_after_many()
        self.optimizer.zero_grad()
        return {
            "grad_norm": norm,
            "skipped_updates": float(reason is not None),
            "learning_rate": float(learning_rate),
            **({} if self.critic is None else self.critic.finish_step(grad_clip=self.config.optimizer.grad_clip)),
            **values,
        }

    def accumulate(self, batch: StepBatch, samples: Sequence[Sample] | None = None) -> dict[str, float]:
        """Add the gradient of `samples` (all of the step's when left out) to what there is; return their metrics.

        Denominators are the step's, so the gradients of its samples add up to the step's.
        """
        parts, images = self._plan(batch.samples if samples is None else samples)
        with torch.set_grad_enabled(not self._policy_waits):
            encoded = EncodedImages(self.model, images)
        if self.critic is not None:
            self.critic.begin_step(images)
        statistics = StepStatistics()
        for part in parts:
            self._add_gradient(part, images, encoded, batch, statistics)
        encoded.backward()
        return self._total(statistics).metrics(tokens=batch.tokens)

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
        """Forward and backward of one micro-batch; its statistics go into `statistics`."""
        micro, coef = make_micro_batch(part, images), self.config.loss.balance_coef
        routing = routing_of(family_of(self.model.config), micro, self.model.device, keep_scores=coef > 0)
        with torch.set_grad_enabled(not self._policy_waits):
            hidden = response_hidden(self.model, micro, encoded.features, routing=routing)
            logprobs, entropy = self._head(self.model, hidden, micro)
        output = policy_loss(
            loss_inputs(micro, logprobs, entropy, batch, max_tokens=self.config.max_new_tokens), self.config.loss
        )
        if coef:
            output += balance_term(routing, micro, coef=coef, step_sequences=batch.sequences)
        if self.critic is not None:
            output = self.critic.add_loss(output, micro, hidden, step_tokens=batch.tokens)
        (weight * output.loss).backward()
        statistics.routers.add(routing, micro.predictors, self.model.config.text_config.n_routed_experts)
        statistics.add(micro, logprobs.detach(), entropy.detach(), output)

    def _total(self, statistics: StepStatistics) -> StepStatistics:
        """The step's statistics from those of this process."""
        return statistics

    def _skipped(self, batch: StepBatch, number: int, random: dict[str, Any], figures: dict[str, Any]) -> SkippedUpdate:
        """All that the refused optimizer step depends on."""
        return SkippedUpdate(
            step=self.version + 1,
            update=number,
            samples=batch.samples,
            config=self.config,
            barred_ids=self._barred_ids,
            model_config=self.model.config.to_dict(),
            weights=self.model.state_dict(),
            critic=self.critic.state_dict() if self.critic is not None else None,
            random=random,
            threads=torch.get_num_threads(),
            **figures,
        )

    def _head(
        self, model: VisionLanguageModel, hidden: torch.Tensor, row: PackedRow
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs and entropies `[N]` of the response tokens from a model's hidden states."""
        return token_logprobs(
            hidden,
            model.lm_head.weight,
            row.targets.to(model.device),
            temperature=self.config.temperature,
            barred=self._barred,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "version": self.version,
            "guard": self._guard.state_dict(),
            "reference": self.reference.state_dict() if self.reference is not None else None,
            "critic": self.critic.state_dict() if self.critic is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.version = state["version"]
        self._guard.load_state_dict(state["guard"])
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])

    def write_checkpoint(self, folder: Path) -> dict[str, Any] | None:
        """The state for the run's checkpoint; a learner on several ranks writes its shards into `folder` instead."""
        return self.state_dict()

    def read_checkpoint(self, folder: Path, state: dict[str, Any] | None) -> None:
        """Restore `write_checkpoint()`. Raises UserError for shards: they are for several ranks."""
        assert state is not None, folder
        self.load_state_dict(state)

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the policy's weights by state-dict name, adapters merged, for engines."""
        return numpy_weights(self.model)

    def save(self, folder: Path) -> None:
        """Write the policy, adapters merged, as a model's folder."""
        self.model.save_pretrained(folder, state_dict=merged_state(self.model))

    def save_adapters(self, folder: Path) -> None:
        """Write the adapters alone, if there are any."""
        save_adapters(self.model, folder)

    def close(self) -> None:
        """Nothing to end: one process holds it all."""
