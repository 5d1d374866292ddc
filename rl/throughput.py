"""Tokens and operations a second of the learner and of rollouts, and who was idle: the metrics of throughput.

Operations are counted from the model's config by `rl.plan.roofline`, as the least work: each prompt with its images
once, no recomputed activations, no padding, no optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from configs.long2short import LongToShortConfig
from configs.model import ModelConfig
from configs.rl import RLConfig
from configs.supervised import SupervisedConfig
from configs.vit import ViTConfig
from rl.learner.protocol import LearnerProtocol
from rl.plan import roofline
from rl.plan.hardware import peak_flops
from rl.plan.roofline import FORWARD, FROZEN, NOT_RUN, TRAINED, Passes
from rl.plan.sizes import ModelSizes, measure_sizes
from rl.step_metrics import Stopwatch
from rl.types import PromptCompletion, Sample
from rollouts.model_family import family_at
from rollouts.resource_use import PoolUse, ProcessUse, memory_metrics, process_use
from rollouts.types import Prompt, ScoredRollout
from rollouts.workers.pool import RolloutPool


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What the samples of a step hold, each prompt once."""

    tokens: int = 0  # packed into rows: prompts, and completions without their last token
    predicted: int = 0  # trained
    pairs: float = 0.0  # of a token and one that it sees
    patches: tuple[int, ...] = ()  # of each image


def count(completions: Sequence[PromptCompletion]) -> Counts:
    """Count the samples of a step."""
    prompts = {c.prompt.id: c.prompt for c in completions}
    inputs = [(len(c.prompt.input_ids), len(c.token_ids) - 1) for c in completions]
    return Counts(
        tokens=sum(len(p.input_ids) for p in prompts.values()) + sum(own for _, own in inputs),
        predicted=sum(c.trainable_tokens for c in completions),
        pairs=sum(roofline.causal_pairs(len(p.input_ids)) for p in prompts.values())
        + sum(roofline.causal_pairs(own, before) for before, own in inputs),
        patches=tuple(n for p in prompts.values() for n in patches_of(p)),
    )


def patches_of(prompt: Prompt) -> list[int]:
    """Patches of each image."""
    return [int(n) for n in prompt.image_grid_hws.prod(-1)] if len(prompt.image_grid_hws) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPasses:
    """Which passes of each part of the model a step makes over its samples, in all."""

    text: Sequence[Passes]
    vision: Sequence[Passes]
    headless: Sequence[Passes] = ()  # of text models without the vocabulary head: a critic's own backbone

    def flops(self, config: Any, counts: Counts) -> float:
        """Operations of a step."""
        shape = {"tokens": counts.tokens, "pairs": counts.pairs}
        total = sum(roofline.text_flops(config, p, predicted=counts.predicted, **shape) for p in self.text)
        total += sum(roofline.text_flops(config, p, predicted=0, **shape) for p in self.headless)
        return total + sum(roofline.image_flops(config, p, counts.patches) for p in self.vision)


def update_passes(sizes: ModelSizes) -> tuple[Passes, Passes]:
    """The passes of an optimizer step over text model and tower. Weights under adapters are frozen.

    A frozen text model still passes a gradient on to a tower that is trained.
    """
    trained = FROZEN if sizes.adapters else TRAINED
    return trained if sizes.trains_text else FROZEN, trained if sizes.trains_vision else FORWARD


def rl_passes(sizes: ModelSizes, stage: RLConfig) -> StepPasses:
    """The passes of an RL step: the update, and what is read before it (`rl.learner.model_outputs`)."""
    text, vision = update_passes(sizes)
    parts = stage.loss.resolved()
    before = stage.epochs * stage.minibatches > 1 or (parts.kl is not None and parts.kl.placement == "reward")
    reads = [FORWARD] * (before + (stage.loss.reference_model is not None))
    updates = stage.epochs
    critic = [] if parts.critic is None or parts.critic.backbone != "own" else [FORWARD, *[text] * updates]
    towers = [] if not critic else [FORWARD, *[vision] * updates]
    return StepPasses(text=[*reads, *[text] * updates], vision=[*reads, *[vision] * updates, *towers], headless=critic)


def supervised_passes(sizes: ModelSizes, *, vision_alone: bool = False, reference: bool = False) -> StepPasses:
    """The passes of a supervised step. `vision_alone`: the text model does not run. `reference`: a frozen copy does."""
    text, vision = update_passes(sizes)
    reads = [FORWARD] * reference
    return StepPasses(text=[*reads, NOT_RUN if vision_alone else text], vision=[*reads, vision])


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWork:
    """The model of a stage, and the passes of one of its steps."""

    sizes: ModelSizes
    passes: StepPasses


def rl_work(model: ModelConfig, path: str, stage: RLConfig) -> ModelWork:
    """The work of an RL stage on the model in `path`."""
    sizes = measure_sizes(family_at(path).load_config(path), model)
    return ModelWork(sizes=sizes, passes=rl_passes(sizes, stage))


def supervised_work(model: ModelConfig, path: str, stage: SupervisedConfig) -> ModelWork:
    """The work of a supervised stage on the model in `path`: a `vit` stage does not run the text model, `dpo` two."""
    vision_alone = isinstance(stage, ViTConfig)
    dpo = isinstance(stage, LongToShortConfig) and stage.method == "dpo"
    sizes = measure_sizes(family_at(path).load_config(path), model, stage.freeze, vision_alone=vision_alone)
    return ModelWork(sizes=sizes, passes=supervised_passes(sizes, vision_alone=vision_alone, reference=dpo))


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Turns the counts and seconds of a step into metrics. Without `work`, operations are left out."""

    work: ModelWork | None = field(default=None)

    def metrics(
        self,
        groups: Sequence[Sequence[ScoredRollout]],
        samples: Sequence[Sample],
        watch: Stopwatch,
        pool: RolloutPool,
        learner: LearnerProtocol,
    ) -> dict[str, float]:
        """Of an RL step: what was generated and trained, who was idle, and the memory of all."""
        use, processes = pool.take_use(), learner.resource_use()
        return {
            **self.rollouts(groups, watch["rollout"], use),
            **self.learner(samples, watch["learner"], processes),
            **use.metrics(),
            **memory_metrics("driver", [process_use("cpu")]),
        }

    def learner(
        self, completions: Sequence[PromptCompletion], seconds: float, processes: Sequence[ProcessUse]
    ) -> dict[str, float]:
        """Of samples that the learner trained on in `seconds`, on all its processes; see docs/metrics.md."""
        counts = count(completions)
        flops = self.work.passes.flops(self.work.sizes.config, counts) if self.work is not None else 0.0
        rates = _rates("learner", counts.tokens, flops, seconds, _peak(processes, len(processes)))
        return rates | memory_metrics("learner", processes)

    def rollouts(self, groups: Sequence[Sequence[ScoredRollout]], seconds: float, use: PoolUse) -> dict[str, float]:
        """Of groups that the workers generated in `seconds`; see docs/metrics.md."""
        tokens, flops = 0, 0.0
        for group in (group for group in groups if group):
            prompt, new = group[0].rollout.prompt, [len(m.rollout.completion.token_ids) for m in group]
            tokens += sum(new)
            if self.work is not None:
                flops += roofline.generation_flops(
                    self.work.sizes.config,
                    prompt=len(prompt.input_ids),
                    new=[max(1, n) for n in new],
                    patches=patches_of(prompt),
                )
        return _rates("rollouts", tokens, flops, seconds, _peak(use.processes, use.gpus))


def _peak(processes: Sequence[ProcessUse], cards: float) -> float | None:
    """Operations a second of `cards` cards; None where the processes' device is unknown or not the same."""
    names = {process.device for process in processes}
    peak = peak_flops(names.pop()) if len(names) == 1 else None
    return peak * cards if peak is not None else None


def _rates(role: str, tokens: int, flops: float, seconds: float, peak: float | None) -> dict[str, float]:
    """Tokens and operations a second, and the share of the cards' peak where that is known."""
    if seconds <= 0 or not tokens:
        return {}
    metrics = {f"tokens_per_second/{role}": tokens / seconds}
    if flops:
        metrics[f"tflops/{role}"] = flops / seconds / 1e12
        if peak:
            metrics[f"mfu/{role}"] = flops / seconds / peak
    return metrics
