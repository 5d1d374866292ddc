"""The learner: scored groups in, a better policy out. A plain class; it runs without Ray."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from rl.algorithms.policy_loss import LossOutput, policy_loss
from rl.checkpoint import random_state
from rl.learner.batch import (
    ImageSet,
    Packable,
    collect_images,
    deal,
    loss_inputs,
    make_micro_batch,
    pack,
    split_by_tokens,
)
from rl.learner.forward import EncodedImages, encode, response_hidden
from rl.learner.learner_config import LearnerConfig
from rl.learner.logprobs import token_logprobs
from rl.learner.lora import merged_state, numpy_weights, save_adapters
from rl.learner.optimizer import advance, build_optimizer, build_schedule, clip_gradients, set_learning_rate
from rl.learner.packed_attention import use_packed_attention
from rl.learner.reference_model import Companions
from rl.learner.router_replay import RouterStatistics, balance_term, routing_of
from rl.learner.skipped_updates import OnSkip, SkippedUpdate, SpikeGuard
from rl.types import MicroBatch, ModelOutputs, PackedRow, PromptCompletion, Sample, StepBatch
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
        self.companions = Companions(
            self.model, config.loss, optimizer=config.optimizer, total_steps=config.total_steps
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
        """What the algorithm asks of every member of every group before advantages: see `Companions`.

        Tokens that are not trained (inserted, or older than `min_version`) are context here as in the update.
        """
        masks, blank = _without_advantages(groups, min_version)
        by_sample = self.companions.model_outputs(
            self.model, blank, self._plan(blank), lambda *args: self._head(*args)[0]
        )
        found = iter(self._in_order(blank, by_sample))
        notes = (next(found).spread(mask) if mask.any() else ModelOutputs() for mask in masks)
        return [[next(notes) for _ in group.rollouts] for group in groups]

    def _plan(self, samples: Sequence[Packable]) -> tuple[list[list[Packable]], ImageSet | None]:
        """The micro-batches that this process runs of some samples, and their images."""
        budget = self.config.micro_batch_tokens
        return split_by_tokens(samples, budget=budget), collect_images(samples, self.model.config, budget=budget)

    def _in_order(self, samples: Sequence[PromptCompletion], found: Mapping[str, T]) -> list[T]:
        """What was found for each sample, by its id, as a list."""
        return [found[sample.id] for sample in samples]

    @torch.no_grad()
    def logprobs(self, completions: Sequence[PromptCompletion]) -> list[np.ndarray]:
        """The current policy's log-probs of each completion's trainable tokens, float32; nothing is changed."""
        parts, images = self._plan(completions)
        features = encode(self.model, images)
        found: dict[str, np.ndarray] = {}
        for part in parts:
            row = pack(part, images)
            routing = routing_of(family_of(self.model.config), row, self.model.device)
            values, _ = self._head(self.model, response_hidden(self.model, row, features, routing=routing), row)
            pieces = np.split(values.float().cpu().numpy(), np.cumsum(row.lengths.numpy())[:-1])
            found |= {completion.id: piece for completion, piece in zip(part, pieces, strict=True)}
        return self._in_order(completions, found)

    def update(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One iteration over `samples`: epochs x minibatches optimizer steps. Returns metrics by name.

        Samples of one prompt stay in one minibatch. With no samples nothing is learnt. Whatever there was to learn,
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
                for name, value in self._optimizer_step(StepBatch(samples=tuple(part)), number=done + 1).items():
                    metrics[name].append(value)
        self.companions.follow(self.model)
        self.version += 1
        done = self.version * self.config.steps_per_iteration
        advance(self.schedule, to=done - self.config.waiting_steps)
        self.companions.keep_pace(done)
        return {name: float(np.mean(values)) for name, values in metrics.items()}

    def _optimizer_step(self, batch: StepBatch, *, number: int) -> dict[str, float]:
        """The gradient of one step, clipped and applied, or refused; `number` counts from 1 within the iteration."""
        random = random_state()
        values = self.accumulate(batch)
        limit, norm, reason = self._guard.limit, 0.0, None
        learning_rate = self.schedule.get_last_lr()[0]
        if not self.companions.policy_waits:  # else it has no gradient: no norm to remember, no weight to decay
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
            **self.companions.finish_step(grad_clip=self.config.optimizer.grad_clip),
            **values,
        }

    def accumulate(self, batch: StepBatch, samples: Sequence[Sample] | None = None) -> dict[str, float]:
        """Add the gradient of `samples` (all of the step's when left out) to what there is; return their metrics.

        Denominators are the step's, so the gradients of its samples add up to the step's.
        """
        parts, images = self._plan(batch.samples if samples is None else samples)
        with torch.set_grad_enabled(not self.companions.policy_waits):
            encoded = EncodedImages(self.model, images)
        self.companions.begin_step(images)
        sums: dict[str, float] = defaultdict(float)
        routers = RouterStatistics()
        for part in parts:
            self._add_gradient(part, images, encoded, batch, sums, routers)
        encoded.backward()
        sums, routers = self._total(sums, routers)
        sums["entropy"] /= batch.tokens
        sums["approx_kl"] /= batch.tokens
        return {name: float(value) for name, value in sums.items()} | routers.metrics()

    def _add_gradient(
        self,
        part: Sequence[Sample],
        images: ImageSet | None,
        encoded: EncodedImages,
        batch: StepBatch,
        sums: dict[str, float],
        routers: RouterStatistics,
        *,
        weight: float = 1.0,
    ) -> None:
        """Forward and backward of one micro-batch; its statistics go into `sums` and `routers`."""
        micro, coef = make_micro_batch(part, images), self.config.loss.balance_coef
        routing = routing_of(family_of(self.model.config), micro, self.model.device, keep_scores=coef > 0)
        with torch.set_grad_enabled(not self.companions.policy_waits):
            hidden = response_hidden(self.model, micro, encoded.features, routing=routing)
            logprobs, entropy = self._head(self.model, hidden, micro)
        output = policy_loss(
            loss_inputs(micro, logprobs, entropy, batch, max_tokens=self.config.max_new_tokens), self.config.loss
        )
        if coef:
            output += balance_term(routing, micro, coef=coef, step_sequences=batch.sequences)
        output = self.companions.add_value_loss(output, micro, hidden, step_tokens=batch.tokens)
        (weight * output.loss).backward()
        routers.add(routing, micro.predictors, self.model.config.text_config.n_routed_experts)
        _add_statistics(sums, micro, logprobs.detach(), entropy.detach(), output)

    def _total(self, sums: dict[str, float], routers: RouterStatistics) -> tuple[dict[str, float], RouterStatistics]:
        """The step's statistics from this process's."""
        return sums, routers

    def _skipped(self, batch: StepBatch, number: int, random: dict[str, Any], figures: dict[str, Any]) -> SkippedUpdate:
        """All that the refused optimizer step depends on."""
        critic = self.companions.critic
        return SkippedUpdate(
            step=self.version + 1,
            update=number,
            samples=batch.samples,
            config=self.config,
            barred_ids=self._barred_ids,
            model_config=self.model.config,
            weights=self.model.state_dict(),
            critic=critic.state_dict() if critic is not None else None,
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
            "companions": self.companions.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.version = state["version"]
        self._guard.load_state_dict(state["guard"])
        self.companions.load_state_dict(state["companions"])

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


def _without_advantages(groups: Sequence[Group], min_version: int) -> tuple[list[np.ndarray], list[Sample]]:
    """Which tokens of every member are learnt from, and samples of those members that have any."""
    rollouts = [m.rollout for group in groups for m in group.rollouts]
    masks = [rollout.completion.mask_from(min_version) for rollout in rollouts]
    samples = [
        Sample(
            id=rollout.id,
            prompt=rollout.prompt,
            token_ids=rollout.completion.token_ids,
            mask=None if mask.all() else mask,
            old_logprobs=rollout.completion.policy_logprobs,
            advantage=0.0,
            experts=rollout.completion.routed_experts,
        )
        for rollout, mask in zip(rollouts, masks, strict=True)
        if mask.any()
    ]
    return masks, samples


def _add_statistics(
    sums: dict[str, float], micro: MicroBatch, logprobs: torch.Tensor, entropy: torch.Tensor, output: LossOutput
) -> None:
    """Add one micro-batch's sums; `approx_kl` is k3 (Schulman) of the sampling policy against the current one."""
    gap = logprobs.cpu() - micro.old_logprobs
    sums["loss"] += float(output.loss.detach())
    sums["entropy"] += float(entropy.sum())
    sums["approx_kl"] += float((gap.exp() - 1 - gap).sum())
    sums["logprob_gap_max"] = max(sums["logprob_gap_max"], float(gap.abs().max()))
    for name, value in output.metrics.items():
        sums[name] += float(value)
