"""The learner: scored groups in, a better policy out. It runs without Ray, in one process or in several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from rl.algorithms.policy_loss import policy_loss
from rl.checkpoint import random_state
from rl.learner.base import AppliedGradient, BaseLearner
from rl.learner.batch import (
    ImageSet,
    loss_inputs,
    make_micro_batch,
    old_logprobs,
    pack,
    split_minibatches,
)
from rl.learner.critic import build_critic
from rl.learner.forward import EncodedImages, response_hidden
from rl.learner.learner_config import LearnerConfig
from rl.learner.model_outputs import OutputReader, outputs_of_groups, sampled_completions
from rl.learner.nf4 import whole_state
from rl.learner.optimizer import advance
from rl.learner.packed_attention import use_packed_attention
from rl.learner.parallel import SINGLE_PROCESS, Parallel
from rl.learner.reference_model import build_reference
from rl.learner.router_replay import balance_term, routing_of
from rl.learner.skipped_updates import OnSkip, SkippedUpdate
from rl.learner.step_statistics import StepStatistics
from rl.types import ModelOutputs, PromptCompletion, Sample, SampledCompletion, SampleHeader, StepBatch
from rollouts.model_family import VisionLanguageModel, family_of
from rollouts.types import Group


class Learner(BaseLearner):
    """Trains the policy with the recipe's algorithm, its reference model and its critic.

    `model` is the whole policy; see `BaseLearner` for the other arguments. `on_skip` is called in the first process
    with each update that is refused; pass it in all of them.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
        config: LearnerConfig,
        *,
        barred_ids: Sequence[int],
        on_skip: OnSkip | None = None,
        parallel: Parallel = SINGLE_PROCESS,
    ) -> None:
        # The reference and the critic start as copies of the whole policy, before it is sharded.
        use_packed_attention(model.train().text_model)
        self.config, self._on_skip, self._barred_ids = config, on_skip, tuple(barred_ids)
        self.reference = build_reference(model, config.loss, parallel)
        self.critic = build_critic(
            model, config.loss, parallel, optimizer=config.optimizer, total_steps=config.total_steps
        )
        super().__init__(
            model,
            optimizer=config.optimizer,
            optimizer_steps=config.policy_steps,
            micro_batch_tokens=config.micro_batch_tokens,
            spike_threshold=config.spike_threshold,
            parallel=parallel,
            barred_ids=barred_ids,
            temperature=config.temperature,
        )
        wants_policy = config.reads_old_logprobs
        self._reader = OutputReader(
            model, self.reference, self.critic, parallel, plan=self._plan, head=self._head, wants_policy=wants_policy
        )

    def model_outputs(self, groups: Sequence[Group], min_version: int = 0) -> list[list[ModelOutputs]]:
        """Log-probs and values before the update, as far as the algorithm reads them: one entry per rollout.

        Arrays are `[T]`. Tokens that are not trained (inserted, or older than `min_version`) are context, as in the
        update, and have 0.
        """
        masks, samples = sampled_completions(groups, min_version)
        parts = self.parallel.exchange(self.own_outputs(samples))
        return outputs_of_groups(groups, masks, parts)

    def own_outputs(self, samples: Sequence[SampledCompletion | SampleHeader]) -> dict[str, ModelOutputs]:
        """`model_outputs` of the samples that this process reads, by id; arrays are `[N]`, of trainable tokens."""
        return self._reader.read(samples)

    @property
    def _policy_waits(self) -> bool:
        """True while the critic is trained alone."""
        return self.critic is not None and self.critic.trains_alone

    def logprobs(self, completions: Sequence[PromptCompletion]) -> list[np.ndarray]:
        """The current policy's log-probs of the trainable tokens of each completion, `[N]` float32."""
        return self._reader.policy_logprobs(completions)

    def update(self, samples: Sequence[Sample | SampleHeader]) -> dict[str, float]:
        """One iteration over `samples`: epochs x minibatches optimizer steps. Returns metrics by name.

        Samples of one prompt stay in one minibatch. Without samples nothing is trained, but learning rates still move
        on: they are scheduled over the run. Raises UserError after too many refused updates in a row.
        """
        metrics: dict[str, list[float]] = defaultdict(list)
        if self.config.loss.reset_optimizer:
            self._forget_moments()
        rng = np.random.default_rng([self.config.seed, self.version])
        # Stochastic rounding draws from generators that no checkpoint holds: a GPU's, and those of other ranks.
        torch.manual_seed(int(np.random.default_rng([self.config.seed, self.version, 1]).integers(2**62)))
        for _ in range(self.config.epochs if samples else 0):
            for part in split_minibatches(samples, self.config.minibatches, rng):
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
        """Compute the gradient of one step, clip it and apply or refuse it. `number` counts from 1 in the iteration."""
        random = random_state()
        values = self.accumulate(batch)
        if self._policy_waits:  # it has no gradient: no norm to remember, no weight to decay
            rate = float(self.schedule.get_last_lr()[0])
            applied = AppliedGradient(norm=0.0, limit=self._guard.limit, refused=None, learning_rate=rate)
        else:
            applied = self._apply_gradient()
        if applied.refused is not None and self._on_skip is not None:
            figures = {"reason": applied.refused, "loss": values["loss"], "norm": applied.norm, "limit": applied.limit}
            skipped = self._skipped(number, random, figures)
            self.parallel.on_first(partial(self._keep, self._on_skip, skipped, batch))
        self._guard.stop_after_many("rl.optimizer")
        self.optimizer.zero_grad()
        return {
            "grad_norm": applied.norm,
            "skipped_updates": float(applied.refused is not None),
            "learning_rate": applied.learning_rate,
            **({} if self.critic is None else self.critic.finish_step(grad_clip=self.config.optimizer.grad_clip)),
            **values,
        }

    def accumulate(self, batch: StepBatch, samples: Sequence[Sample | SampleHeader] | None = None) -> dict[str, float]:
        """Add the gradient of `samples`, by default all of the step's, to the gradients. Returns metrics by name.

        Denominators are the step's, so the gradients of its samples add up to the step's.
        """
        parts, images = self._plan(batch.samples if samples is None else samples)
        with torch.set_grad_enabled(not self._policy_waits):
            encoded = EncodedImages(self.model, images, self.parallel)
        if self.critic is not None:
            self.critic.begin_step(images)

        def loss_of(part: Sequence[SampledCompletion], statistics: StepStatistics) -> torch.Tensor:
            if trained := [sample for sample in part if isinstance(sample, Sample)]:
                return self._loss(trained, images, encoded, batch, statistics)
            return self._no_loss(part, images, encoded)

        leaves = [encoded.features, *(self.critic.leaves() if self.critic is not None else ())]
        own = self._add_gradients(parts, loss_of, StepStatistics, leaves)
        encoded.backward()
        self._gradients.finish()
        total = StepStatistics.total(self.parallel.exchange(StepStatistics.total(own)))
        return total.metrics(tokens=batch.tokens)

    def _loss(
        self,
        part: Sequence[Sample],
        images: ImageSet | None,
        encoded: EncodedImages,
        batch: StepBatch,
        statistics: StepStatistics,
    ) -> torch.Tensor:
        """The loss of one micro-batch; its statistics are added to `statistics`."""
        micro, coef = make_micro_batch(part, images), self.config.loss.balance_coef
        routing = routing_of(family_of(self.model.config), micro, self.model.device, keep_scores=coef > 0)
        with torch.set_grad_enabled(not self._policy_waits):
            hidden = response_hidden(self.model, micro, encoded.features, routing=routing)
            logprobs, entropy = self._head(self.model, hidden, micro.targets)
        output = policy_loss(
            loss_inputs(micro, logprobs, entropy, batch, max_tokens=self.config.max_new_tokens), self.config.loss
        )
        if coef:
            output += balance_term(routing, micro, coef=coef, step_sequences=batch.sequences)
        total = output
        if self.critic is not None:
            total = self.critic.add_loss(output, micro, hidden, step_tokens=batch.tokens)
        statistics.routers.add(routing, micro.predictors, self.model.config.text_config.n_routed_experts)
        statistics.add(micro, logprobs.detach(), entropy.detach(), replace(total, loss=output.loss))
        return total.loss

    def _no_loss(
        self, part: Sequence[SampledCompletion], images: ImageSet | None, encoded: EncodedImages
    ) -> torch.Tensor:
        """What `_loss` computes, on dummy samples: every gradient of it is 0."""
        row = pack(part, images)
        routing = routing_of(family_of(self.model.config), row, self.model.device)
        with torch.set_grad_enabled(not self._policy_waits):
            hidden = response_hidden(self.model, row, encoded.features, routing=routing)
            loss = self._head(self.model, hidden, row.targets)[0].sum()
        if self.critic is not None:
            loss = loss + self.critic.step_values(row, old_logprobs(part), hidden).sum()
        return 0.0 * loss

    def _keep(self, on_skip: OnSkip, skipped: SkippedUpdate, batch: StepBatch) -> None:
        on_skip(replace(skipped, samples=tuple(self.parallel.whole(batch.samples))))

    def _skipped(self, number: int, random: dict[str, Any], figures: dict[str, Any]) -> SkippedUpdate:
        """Everything that the refused optimizer step depends on, but for its samples."""
        return SkippedUpdate(
            step=self.version + 1,
            update=number,
            samples=(),
            config=self.config,
            barred_ids=self._barred_ids,
            model_config=self.model.config.to_dict(),
            weights=self.parallel.gather(whole_state(self.model)),
            critic=self.parallel.gather(self.critic.state_dict()) if self.critic is not None else None,
            random=random,
            threads=torch.get_num_threads(),
            micro_batch_threads=self.parallel.threads,
            **figures,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to continue exactly."""
        return super().state_dict() | {
            "reference": self.reference.state_dict() if self.reference is not None else None,
            "critic": self.critic.state_dict() if self.critic is not None else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        super().load_state_dict(state)
        if self.reference is not None:
            self.reference.load_state_dict(state["reference"])
        if self.critic is not None:
            self.critic.load_state_dict(state["critic"])
