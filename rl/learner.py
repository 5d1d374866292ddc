"""The learner: scored groups in, a better policy out. A plain class; it runs without Ray."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from configs.schema import LossConfig, OptimizerConfig
from kimi_vl import KimiVLForConditionalGeneration
from kimi_vl.packing import PackedLayout, use_packed_attention
from rl.batch import ImageSet, collect_images, make_micro_batch, split_by_tokens
from rl.logprobs import token_logprobs
from rl.losses import LossInputs, LossOutput, grpo_loss, kimi_k15_loss
from rl.optim import build_optimizer, build_schedule
from rl.types import MicroBatch, Sample, StepBatch
from rollouts.engines.sampling import barred_token_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerConfig:
    """What the learner needs to know of a recipe."""

    loss: LossConfig
    optimizer: OptimizerConfig
    temperature: float  # the rollouts' temperature: log-probs are of the same distribution
    total_steps: int  # optimizer steps of the run, for the schedule
    epochs: int = 1
    minibatches: int = 1
    micro_batch_tokens: int = 16_384  # packed tokens of one forward pass
    seed: int = 0


class Learner:
    """Holds the policy, its optimizer and its schedule; `version` counts the updates that were published from it."""

    def __init__(
        self, model: KimiVLForConditionalGeneration, config: LearnerConfig, *, barred_ids: Sequence[int]
    ) -> None:
        self.model = model.train()
        use_packed_attention(model.model.language_model)
        self.config = config
        self.version = 0
        self._barred = barred_token_mask(model.config.text_config.vocab_size, barred_ids).to(model.device)
        self.optimizer, self.schedule = self._new_optimizer()

    def _new_optimizer(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        """A fresh optimizer and its schedule."""
        optimizer = build_optimizer(self.model, self.config.optimizer)
        return optimizer, build_schedule(optimizer, self.config.optimizer, total=self.config.total_steps)

    def _forget_moments(self) -> None:
        """Start a fresh optimizer where the schedule stands."""
        position = self.schedule.state_dict()
        self.optimizer, self.schedule = self._new_optimizer()
        self.schedule.load_state_dict(position)
        for group, rate in zip(self.optimizer.param_groups, self.schedule.get_last_lr(), strict=True):
            group["lr"] = rate

    def update(self, samples: Sequence[Sample]) -> dict[str, float]:
        """One iteration over `samples`: epochs x minibatches optimizer steps. Returns metrics by name.

        Samples of one prompt stay in one minibatch. With no samples nothing changes but the version.
        """
        metrics: dict[str, list[float]] = defaultdict(list)
        if self.config.loss.reset_optimizer:
            self._forget_moments()
        rng = np.random.default_rng([self.config.seed, self.version])
        for _ in range(self.config.epochs if samples else 0):
            for part in _minibatches(samples, self.config.minibatches, rng):
                for name, value in self._optimizer_step(StepBatch(samples=tuple(part))).items():
                    metrics[name].append(value)
        self.version += 1
        return {name: float(np.mean(values)) for name, values in metrics.items()}

    def _optimizer_step(self, batch: StepBatch) -> dict[str, float]:
        """Accumulate the gradient of one step over micro-batches, clip it and apply it."""
        images = collect_images(batch.samples)
        features = self._encode(images)
        leaf = features.detach().requires_grad_() if features is not None else None
        sums: dict[str, float] = defaultdict(float)
        for part in split_by_tokens(batch.samples, budget=self.config.micro_batch_tokens):
            micro = make_micro_batch(part, images)
            logprobs, entropy = self._logprobs(micro, leaf)
            output = self._loss(micro, logprobs, batch)
            output.loss.backward()
            _add_statistics(sums, micro, logprobs.detach(), entropy.detach(), output)
        if features is not None and leaf is not None and leaf.grad is not None:
            features.backward(leaf.grad)  # every image passed the vision tower once, whatever the micro-batches
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optimizer.grad_clip)
        learning_rate = self.schedule.get_last_lr()[0]
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return {
            "loss": sums["loss"],
            "grad_norm": float(norm),
            "learning_rate": float(learning_rate),
            "entropy": sums["entropy"] / batch.tokens,
            "approx_kl": sums["approx_kl"] / batch.tokens,
            "clip_fraction": sums["clipped_tokens"] / batch.tokens,
            "squared_log_ratio": sums["squared_log_ratio"] / batch.sequences,
            "logprob_gap_max": sums["gap_max"],
        }

    def _encode(self, images: ImageSet | None) -> torch.Tensor | None:
        """Features of all images of the step, with their graph."""
        if images is None:
            return None
        device, dtype = self.model.device, self.model.dtype
        return self.model.encode_images(images.pixel_values.to(device, dtype), images.grids.to(device))

    def _logprobs(self, micro: MicroBatch, features: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probs and entropies `[N]` of the response tokens under the current policy."""
        device = self.model.device
        rows = features[micro.feature_index.to(device)] if features is not None and len(micro.feature_index) else None
        hidden = self.model.model.language_model(
            inputs_embeds=self.model.embed(micro.input_ids[None].to(device), rows),
            position_ids=micro.position_ids[None].to(device),
            layout=PackedLayout.of(micro.segments, device),
            use_cache=False,
        )
        chosen = hidden.last_hidden_state[0, micro.predictors.to(device)]
        return token_logprobs(
            chosen,
            self.model.lm_head.weight,
            micro.targets.to(device),
            temperature=self.config.temperature,
            barred=self._barred,
        )

    def _loss(self, micro: MicroBatch, logprobs: torch.Tensor, batch: StepBatch) -> LossOutput:
        device, loss = self.model.device, self.config.loss
        inputs = LossInputs(
            logprobs=logprobs,
            old_logprobs=micro.old_logprobs.to(device),
            advantages=micro.advantages.to(device),
            sequence_ids=micro.sequence_ids.to(device),
            lengths=micro.lengths.to(device),
            step_sequences=batch.sequences,
        )
        if loss.algorithm == "grpo":
            return grpo_loss(inputs, clip_low=loss.clip_low, clip_high=loss.clip_high)
        return kimi_k15_loss(inputs, tau=loss.tau)

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "version": self.version,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore `state_dict()`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.version = state["version"]

    def weights(self) -> dict[str, np.ndarray]:
        """A copy of the policy's weights by state-dict name, for engines."""
        return numpy_weights(self.model)


def numpy_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """A copy of a model's state dict as arrays. numpy has no bfloat16: such weights go as float32, which is exact."""
    return {
        name: (t.float() if t.dtype == torch.bfloat16 else t).detach().cpu().numpy().copy()
        for name, t in model.state_dict().items()
    }


def _minibatches(samples: Sequence[Sample], count: int, rng: np.random.Generator) -> list[list[Sample]]:
    """Deal whole groups into `count` parts in a seeded order; empty parts are left out."""
    groups: dict[int, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[id(sample.prompt)].append(sample)
    ordered = list(groups.values())
    order = rng.permutation(len(ordered)) if count > 1 else range(len(ordered))
    parts: list[list[Sample]] = [[] for _ in range(count)]
    for position, index in enumerate(order):
        parts[position % count].extend(ordered[index])
    return [part for part in parts if part]


def _add_statistics(
    sums: dict[str, float], micro: MicroBatch, logprobs: torch.Tensor, entropy: torch.Tensor, output: LossOutput
) -> None:
    """Add one micro-batch's sums; `approx_kl` is k3 (Schulman) of the sampling policy against the current one."""
    gap = logprobs.cpu() - micro.old_logprobs
    sums["loss"] += float(output.loss.detach())
    sums["entropy"] += float(entropy.sum())
    sums["approx_kl"] += float((gap.exp() - 1 - gap).sum())
    sums["gap_max"] = max(sums["gap_max"], float(gap.abs().max()))
    for name, value in output.sums.items():
        sums[name] += value
