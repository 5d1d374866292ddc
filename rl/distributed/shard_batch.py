"""Which rank learns from which samples: every rank makes the same plan, and each takes its part of it.

All ranks must make the same calls in the same order, or their collectives do not meet. So each runs as many
micro-batches as the rank with the most: a dummy sample, whose gradient is 0, stands for each that is missing, and a
rank with fewer images sends a small grey one through the tower.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch

from rl.learner.batch import ImageSet, Packable, collect_images, image_parts, images_of, split_by_tokens
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageConfig


def shard_batch(samples: Sequence[Packable], *, ranks: int, budget: int) -> list[list[list[Packable]]]:
    """The micro-batches of each rank, at most `budget` packed tokens each, the largest first.

    Ranks get about the same number of packed tokens: groups go, longest first, each to the rank with the least so far.
    A group stays whole unless it alone is more than a rank's fair share; then it is cut, and its prompt repeated.
    """
    fair = -(-sum(_packed(group) for group in _groups(samples)) // ranks)
    pieces = [piece for group in _groups(samples) for piece in _cut(group, fair)]
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
    """A rank's images, in as many parts as those of any rank: where it has fewer, or none, a grey image passes."""
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


def _groups(samples: Sequence[Packable]) -> list[list[Packable]]:
    groups: dict[str, list[Packable]] = defaultdict(list)
    for sample in samples:
        groups[sample.prompt.id].append(sample)
    return list(groups.values())


def _packed(samples: Sequence[PromptCompletion]) -> int:
    """Tokens of the packed row: each prompt once, each response without its last token."""
    prompts = {s.prompt.id: len(s.prompt.input_ids) for s in samples}
    return sum(prompts.values()) + sum(len(s.token_ids) - 1 for s in samples)


def _cut(group: list[Packable], fair: int) -> list[list[Packable]]:
    """The group whole, or in as many parts of about equal size as it has fair shares."""
    count = min(len(group), -(-_packed(group) // fair))
    loads = [0] * count
    parts: list[list[Packable]] = [[] for _ in range(count)]
    for sample in sorted(group, key=len, reverse=True):
        least = loads.index(min(loads))
        parts[least].append(sample)
        loads[least] += len(sample.token_ids)
    return parts
