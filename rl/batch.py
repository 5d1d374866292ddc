"""Samples to micro-batches: similar lengths together, under a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from rl.types import MicroBatch, Sample
from rollouts.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSet:
    """The distinct images of a step: each is encoded once, and samples point into the features by `offsets`."""

    pixel_values: torch.Tensor  # [P, 3, 14, 14]
    grids: torch.Tensor  # [N, 2]
    offsets: dict[int, torch.Tensor]  # id(prompt) -> rows of the features that fill its placeholders


def collect_images(samples: Sequence[Sample], *, merged: int = 4) -> ImageSet | None:
    """Gather each distinct prompt's patches once; None if no prompt has an image. `merged` patches make a token."""
    prompts: dict[int, Prompt] = {id(s.prompt): s.prompt for s in samples if len(s.prompt.image_grid_hws)}
    if not prompts:
        return None
    offsets, start = {}, 0
    for key, prompt in prompts.items():
        count = int(prompt.image_grid_hws.prod(-1).sum()) // merged
        offsets[key] = torch.arange(start, start + count)
        start += count
    return ImageSet(
        pixel_values=torch.from_numpy(np.concatenate([p.pixel_values for p in prompts.values()])),
        grids=torch.from_numpy(np.concatenate([p.image_grid_hws for p in prompts.values()])),
        offsets=offsets,
    )


def split_by_tokens(samples: Sequence[Sample], *, budget: int) -> list[list[Sample]]:
    """Cut samples, longest first, so that `rows * longest` stays within `budget` (one sample at least)."""
    ordered = sorted(samples, key=len, reverse=True)
    batches: list[list[Sample]] = []
    for sample in ordered:
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0]) <= budget:
            batches[-1].append(sample)
        else:
            batches.append([sample])
    return batches


def make_micro_batch(samples: Sequence[Sample], images: ImageSet | None) -> MicroBatch:
    """Pad samples on the right into one `MicroBatch`."""
    width = max(len(s) for s in samples)
    ids = torch.zeros(len(samples), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    predictors = []
    for row, sample in enumerate(samples):
        prompt_length = len(sample.prompt.input_ids)
        ids[row, :prompt_length] = torch.from_numpy(np.array(sample.prompt.input_ids))
        ids[row, prompt_length : len(sample)] = torch.from_numpy(np.array(sample.token_ids))
        mask[row, : len(sample)] = 1
        first = row * width + prompt_length - 1  # the last prompt token predicts the first response token
        predictors.append(torch.arange(first, first + len(sample.token_ids)))
    lengths = torch.tensor([len(s.token_ids) for s in samples])
    rows = [images.offsets[id(s.prompt)] for s in samples if id(s.prompt) in images.offsets] if images else []
    return MicroBatch(
        input_ids=ids,
        attention_mask=mask,
        feature_index=torch.cat(rows) if rows else torch.zeros(0, dtype=torch.long),
        predictors=torch.cat(predictors),
        targets=torch.from_numpy(np.concatenate([s.token_ids for s in samples])),
        old_logprobs=torch.from_numpy(np.concatenate([s.old_logprobs for s in samples])),
        advantages=torch.tensor([s.advantage for s in samples], dtype=torch.float32),
        lengths=lengths,
        sequence_ids=torch.repeat_interleave(torch.arange(len(samples)), lengths),
        imitated=torch.tensor([s.imitated for s in samples]),
        columns={
            name: torch.from_numpy(np.concatenate([s.columns[name] for s in samples])) for name in samples[0].columns
        },
    )
