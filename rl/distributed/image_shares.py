"""Each rank's share of the samples of a step. Every rank computes the same shares, and takes its own.

Collectives match only if all ranks make the same calls in the same order. So each rank runs as many micro-batches as
the rank with the most: a dummy sample, whose gradient is 0, replaces each missing one. A rank with fewer parts of
images runs the tower on a small grey image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from rl.learner.batch import ImageSet, collect_images, image_parts, images_of
from rl.types import PromptCompletion
from rollouts.model_family import VisionLanguageConfig
from rollouts.patches import Patches


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
        patches=Patches(np.zeros((0, *config.patch_shape), np.float32)),
        patch_shape=config.patch_shape,
        grids=torch.zeros(0, 2, dtype=torch.long),
        offsets={},
        parts=(),
        merge_shape=config.merge_shape,
    )
