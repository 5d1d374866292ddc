"""Each rank's share of the samples of a step. Every rank computes the same shares, and takes its own.

Collectives match only if all ranks make the same calls in the same order. So each rank runs as many micro-batches as
the rank with the most: a dummy sample, whose gradient is 0, replaces each missing one. A rank with fewer parts of
images runs the tower on a small grey image.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import replace

import torch

from rl.learner.batch import ImageSet, Packable, by_prompt, collect_images, image_parts, images_of, split_by_tokens
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageConfig


def shard_batch(samples: Sequence[Packable], *, ranks: int, budget: int) -> list[list[list[Packable]]]:
    """The micro-batches of each rank, `[rank][micro-batch][sample]`, the largest first.

    A micro-batch has at most `budget` packed tokens, but at least one sample. Ranks get about the same number of packed
    tokens: groups go, longest first, to the rank with the fewest so far. A group larger than a rank's fair share is
    split, and its prompt repeated.
    """
    groups = by_prompt(samples)
    fair = -(-sum(map(_packed, groups)) // ranks)
    pieces = [piece for group in groups for piece in _cut(group, fair)]
    loads = [(0, rank) for rank in range(ranks)]
    shares: list[list[Packable]] = [[] for _ in range(ranks)]
    for piece in sorted(pieces, key=_packed, reverse=True):
        load, rank = heapq.heappop(loads)
        shares[rank].extend(piece)
        heapq.heappush(loads, (load + _packed(piece), rank))
    return [sorted(split_by_tokens(share, budget=budget), key=_packed, reverse=True) for share in shares]


def share_of_images(
    shares: Sequence[Sequence[Sequence[PromptCompletion]]], rank: int, config: VisionLanguageConfig, *, budget: int
) -> ImageSet | None:
    """The images of `rank`, in as many parts as any rank has; missing parts are empty. None if no rank has images."""
    every = [[sample for part in share for sample in part] for share in shares]
    most = max(len(image_parts(images_of(samples).values(), budget=budget)) for samples in every)
    if not most:
        return None
    images = collect_images(every[rank], config, budget=budget) or _no_image(config)
    missing = most - len(images.parts)
    return replace(images, parts=images.parts + (slice(0, 0),) * missing)


def _no_image(config: VisionLanguageConfig) -> ImageSet:
    return ImageSet(
        pixel_values=torch.zeros(0, *config.patch_shape),
        grids=torch.zeros(0, 2, dtype=torch.long),
        offsets={},
        parts=(),
        merge_shape=config.merge_shape,
    )


def _packed(samples: Sequence[PromptCompletion]) -> int:
    """Tokens of the packed row: each prompt once, and each response without its last token."""
    prompts = {s.prompt.id: len(s.prompt.input_ids) for s in samples}
    return sum(prompts.values()) + sum(len(s.token_ids) - 1 for s in samples)


def _cut(group: list[Packable], fair: int) -> list[list[Packable]]:
    """Split a group into parts of about equal size, as few as a limit of `fair` packed tokens allows."""
    count = min(len(group), -(-_packed(group) // fair))
    loads = [0] * count
    parts: list[list[Packable]] = [[] for _ in range(count)]
    for sample in sorted(group, key=len, reverse=True):
        least = loads.index(min(loads))
        parts[least].append(sample)
        loads[least] += len(sample.token_ids)
    return parts
