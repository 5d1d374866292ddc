"""Seconds of a step, from the work that the config needs and the rates of `rl.plan.hardware`."""

from __future__ import annotations

from dataclasses import dataclass

from configs.rl import RLConfig
from configs.supervised import SupervisedConfig
from configs.vit import ViTConfig
from rl.plan import roofline
from rl.plan.hardware import DECODING, FULL_TRAINING, LORA_TRAINING, SYNC, Gpu
from rl.plan.sizes import ModelSizes
from rl.plan.workloads import Means, StageCounts

ROWS = 256  # samples that one engine decodes together


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one step: a synchronous step does one after the other."""

    rollout: float
    update: float
    sync: float

    @property
    def total(self) -> float:
        """Seconds of the step."""
        return self.rollout + self.update + self.sync


def experts_met(config: object, rows: float) -> float:
    """The expected number of distinct experts of a layer that `rows` tokens read, if routes are independent."""
    text = getattr(config, "text_config")  # noqa: B009
    experts, chosen = text.n_routed_experts, text.num_experts_per_tok
    return experts * (1 - (1 - chosen / experts) ** rows)


def update_seconds(sizes: ModelSizes, stage: RLConfig | SupervisedConfig, counts: StageCounts, gpu: Gpu) -> float:
    """The forward and backward passes of a step; log-probs before the update are a third of them more."""
    p = roofline.products(sizes.config)
    if isinstance(stage, ViTConfig):  # 1,024 image tokens of a pair are 4,096 patches, whatever its caption
        down, across = sizes.config.merge_shape
        return 6.0 * sizes.vision * stage.batch_size * 1024 * down * across / (gpu.flops * FULL_TRAINING.value)
    flops = (4.0 if sizes.adapters else 6.0) * (p.active + p.head) * counts.tokens
    passes = 1.0
    if isinstance(stage, RLConfig):
        reads_before = stage.epochs * stage.minibatches > 1
        passes = stage.epochs + (1 / 3 if reads_before else 0.0)
    share = (LORA_TRAINING if sizes.adapters else FULL_TRAINING).value
    return passes * flops / (gpu.flops * share * stage.ranks.count)


def rollout_seconds(sizes: ModelSizes, stage: RLConfig, means: Means, gpu: Gpu, *, cached: int, width: int) -> float:
    """Decoding of a step's completions on all workers; at least as long as one completion of the longest length.

    `cached` is the capacity of one worker's cache in tokens, `width` the bytes of a weight.
    """
    each = -(-stage.prompts_per_step * stage.samples_per_prompt // stage.workers)
    rows = max(1, min(ROWS, each, cached // max(1, means.prompt // stage.samples_per_prompt + means.answer)))
    full = decode_seconds(sizes, rows, rows * means.answer / 2, gpu, width)
    alone = decode_seconds(sizes, 1, means.answer, gpu, width)
    longest = stage.partial.budget if stage.partial else stage.sampling.max_new_tokens
    tail = max(0, longest - means.answer) * alone
    return -(-each // rows) * means.answer * full + tail


def decode_seconds(sizes: ModelSizes, rows: int, cached: float, gpu: Gpu, width: int) -> float:
    """One token for each of `rows` samples, with `cached` tokens in the cache and weights of `width` bytes."""
    work = roofline.decode_work(sizes.config, rows=rows, cached=cached, experts=experts_met(sizes.config, rows))
    return work.seconds(gpu.flops, gpu.bandwidth) * width / roofline.BYTES / DECODING.value


def sync_seconds(sizes: ModelSizes, width: int) -> float:
    """A weight sync through the object store, in a type of `width` bytes."""
    return width * sizes.parameters / SYNC.value
