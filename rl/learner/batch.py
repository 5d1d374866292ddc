"""Minibatches and packed micro-batches of samples. A micro-batch has a budget of tokens, and each prompt once."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch

from rewards.types import Task
from rl.algorithms.loss_inputs import LossInputs
from rl.learner.packed_attention import PackedSegment
from rl.learner.router_replay import place_experts
from rl.types import (
    DummySample,
    MicroBatch,
    PackedRow,
    PromptCompletion,
    Sample,
    SampledCompletion,
    SampleHeader,
    StepBatch,
)
from rollouts.model_family import VisionLanguageConfig
from rollouts.patches import Patches
from rollouts.types import Prompt

Packable = TypeVar("Packable", bound=PromptCompletion | SampleHeader)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """The distinct images of a step: each is encoded once, and `offsets` are each prompt's rows of the features."""

    patches: Patches
    patch_shape: tuple[int, ...]
    grids: torch.Tensor  # [N, 2]
    offsets: dict[str, torch.Tensor]  # prompt id -> rows of the features that fill its placeholders
    parts: tuple[slice, ...]  # of the images: those that pass the tower together; an empty one keeps step with others
    merge_shape: tuple[int, int]  # patches down and across of one image token

    def part(self, images: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches and grids of some images, or of a grey one in place of none."""
        if images.start == images.stop:
            grey = torch.zeros(math.prod(self.merge_shape), *self.patch_shape)
            return grey, torch.tensor([self.merge_shape])
        ends = [0, *self.grids.prod(-1).cumsum(0).tolist()]
        rows = slice(ends[images.start], ends[images.stop])
        return torch.from_numpy(self.patches.floats(rows)), self.grids[images]


def images_of(completions: Sequence[PromptCompletion]) -> dict[str, Prompt]:
    """The distinct prompts that have images, by id."""
    return {c.prompt.id: c.prompt for c in completions if len(c.prompt.image_grid_hws)}


def grids_of(samples: Sequence[PromptCompletion | SampleHeader]) -> list[np.ndarray]:
    """The grids `[N, 2]` of each distinct prompt that has images."""
    return [*{s.prompt.id: s.prompt.image_grid_hws for s in samples if len(s.prompt.image_grid_hws)}.values()]


def image_parts(grids: Iterable[np.ndarray], *, budget: int | None) -> tuple[slice, ...]:
    """Consecutive images of at most `budget` patches, but at least one image; a single part without a budget.

    `grids` `[N, 2]` are those of each prompt.
    """
    parts: list[slice] = []
    left = 0
    patches = [int(count) for own in grids for count in own.prod(-1)]
    for at, count in enumerate(patches):
        if not parts or (budget is not None and count > left):
            parts.append(slice(at, at))
            left = budget or 0
        parts[-1] = slice(parts[-1].start, at + 1)
        left -= count
    return tuple(parts)


def collect_images(
    completions: Sequence[PromptCompletion], config: VisionLanguageConfig, *, budget: int | None = None
) -> ImageSet | None:
    """The images of each distinct prompt once; None if no prompt has an image. `config` is the model's.

    At most `budget` patches pass the tower together, see `rl.learner.forward.EncodedImages`.
    """
    prompts = images_of(completions)
    if not prompts:
        return None
    offsets, start = {}, 0
    for key, prompt in prompts.items():
        count = int(prompt.image_grid_hws.prod(-1).sum()) // math.prod(config.merge_shape)
        offsets[key] = torch.arange(start, start + count)
        start += count
    return ImageSet(
        patches=Patches.join([p.patches for p in prompts.values()]),
        patch_shape=config.patch_shape,
        grids=torch.from_numpy(np.concatenate([p.image_grid_hws for p in prompts.values()])),
        offsets=offsets,
        parts=image_parts(grids_of(completions), budget=budget),
        merge_shape=config.merge_shape,
    )


def by_prompt(samples: Sequence[Packable]) -> list[list[Packable]]:
    """The samples of each prompt, in the order in which prompts and samples come."""
    groups: dict[str, list[Packable]] = defaultdict(list)
    for sample in samples:
        groups[sample.prompt.id].append(sample)
    return list(groups.values())


def split_minibatches(samples: Sequence[Packable], count: int, rng: np.random.Generator) -> list[list[Packable]]:
    """Split samples into at most `count` minibatches, groups whole and in random order; none is empty."""
    ordered = by_prompt(samples)
    order = rng.permutation(len(ordered)) if count > 1 else range(len(ordered))
    parts: list[list[Packable]] = [[] for _ in range(count)]
    for position, index in enumerate(order):
        parts[position % count].extend(ordered[index])
    return [part for part in parts if part]


def split_by_tokens(samples: Sequence[Packable], *, budget: int) -> list[list[Packable]]:
    """Split samples into parts of at most `budget` packed tokens, but at least one sample; longest groups come first.

    The samples of a prompt share its tokens within a part. A prompt whose samples take several parts is repeated.
    """
    parts: list[list[Packable]] = []
    left = 0
    for group in sorted(by_prompt(samples), key=lambda g: sum(map(len, g)), reverse=True):
        whole = group[0].prompt.tokens + sum(_inputs(s) for s in group)
        opened = whole > left and bool(parts)  # a group that does not fit whole starts a part of its own
        for at, sample in enumerate(group):
            prompt = sample.prompt.tokens if at == 0 else 0
            if not parts or (at == 0 and opened) or prompt + _inputs(sample) > left:
                parts.append([])
                left, prompt = budget, sample.prompt.tokens
            parts[-1].append(sample)
            left -= prompt + _inputs(sample)
    return parts


def pack(completions: Sequence[PromptCompletion], images: ImageSet | None) -> PackedRow:
    """Put completions, those of one prompt next to each other, into one row: `[prompt][response][response]...`.

    The last token of a response is a target only, so the row leaves it out.
    """
    ids, positions, rows, segments = [], [], [], []
    start = prompt_start = 0
    last: Prompt | None = None
    for completion in completions:
        prompt = completion.prompt
        if last is None or prompt.id != last.id:
            last, prompt_start = prompt, start
            ids.append(prompt.input_ids)
            segments.append(PackedSegment(start=start, length=len(prompt.input_ids)))
            positions.append(np.arange(len(prompt.input_ids)))
            rows += [images.offsets[prompt.id]] if images and prompt.id in images.offsets else []
            start += len(prompt.input_ids)
        before, length = len(prompt.input_ids), _inputs(completion)
        if length:
            ids.append(completion.token_ids[:-1])
            segments.append(PackedSegment(start=start, length=length, prefix_start=prompt_start, prefix_length=before))
            positions.append(before + np.arange(length))
        start += length
    trainable = torch.from_numpy(np.concatenate([c.trainable for c in completions]))
    lengths = torch.tensor([c.trainable_tokens for c in completions])
    predictors = predictor_positions(completions)
    return PackedRow(
        input_ids=_flat(ids),
        position_ids=_flat(positions),
        segments=tuple(segments),
        feature_index=torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long),
        predictors=_flat(predictors)[trainable],
        targets=_flat([c.token_ids for c in completions])[trainable],
        lengths=lengths,
        sequence_ids=torch.repeat_interleave(torch.arange(len(completions)), lengths),
        experts=place_experts(completions, predictors, start),
    )


def old_logprobs(samples: Sequence[SampledCompletion]) -> torch.Tensor:
    """The log-probs `[N]` that the trainable tokens of a packed row were sampled with."""
    return _flat([s.old_logprobs[s.trainable] for s in samples])


def dummy_sample(token_id: int, config: VisionLanguageConfig) -> DummySample:
    """One token after a prompt of one token, without an image. `config` is the model's."""
    return DummySample(
        id="dummy",
        prompt=Prompt(
            id="dummy",
            task=Task(id="dummy", source="dummy", question="", answer=""),
            input_ids=np.array([token_id]),
            patches=Patches(np.zeros((0, *config.patch_shape), np.float32)),
            image_grid_hws=np.zeros((0, 2), np.int64),
        ),
        token_ids=np.array([token_id]),
        old_logprobs=np.zeros(1, np.float32),
    )


def predictor_positions(completions: Sequence[PromptCompletion]) -> list[np.ndarray]:
    """The packed positions that predict the tokens of each completion, one `[T]` array each.

    The prompt's last token predicts the first response token; each response token predicts the next.
    """
    found = []
    start = last_of_prompt = 0
    prompt: Prompt | None = None
    for completion in completions:
        if prompt is None or completion.prompt.id != prompt.id:
            prompt = completion.prompt
            start += len(prompt.input_ids)
            last_of_prompt = start - 1
        found.append(np.array([last_of_prompt, *range(start, start + _inputs(completion))]))
        start += _inputs(completion)
    return found


def make_micro_batch(samples: Sequence[Sample], images: ImageSet | None) -> MicroBatch:
    """Pack samples into a row, with what the losses read of them."""
    row = pack(samples, images)
    return MicroBatch(
        **{f.name: getattr(row, f.name) for f in fields(row)},
        old_logprobs=old_logprobs(samples),
        advantages=torch.tensor([s.advantage for s in samples], dtype=torch.float32),
        sft_mask=torch.tensor([s.sft_mask for s in samples]),
        columns={name: _flat([s.columns[name][s.trainable] for s in samples]) for name in samples[0].columns},
    )


def loss_inputs(
    micro: MicroBatch, logprobs: torch.Tensor, entropy: torch.Tensor, batch: StepBatch, *, max_tokens: int
) -> LossInputs:
    """A micro-batch as the losses read it, beside the step's counts.

    The ratio's denominator is the learner's own, never the engine's: the two round differently, in float32 too, and
    the clip would take that for a movement of the policy.
    """
    device = logprobs.device
    unread = ("old_values", "returns", "engine_logprobs")
    columns = {name: c.to(device) for name, c in micro.columns.items() if name not in unread}
    return LossInputs(
        logprobs=logprobs,
        old_logprobs=logprobs.detach() if batch.first else micro.old_logprobs.to(device),
        advantages=micro.advantages.to(device),
        sequence_ids=micro.sequence_ids.to(device),
        lengths=micro.lengths.to(device),
        step_sequences=batch.sequences,
        step_tokens=batch.tokens,
        max_tokens=max_tokens,
        entropy=entropy,
        sft_mask=micro.sft_mask.to(device),
        step_sft_tokens=batch.sft_tokens,
        **columns,
    )


def _inputs(completion: PromptCompletion | SampleHeader) -> int:
    """Response tokens that the model reads: all but the last."""
    return completion.response_tokens - 1


def _flat(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.concatenate(arrays))
