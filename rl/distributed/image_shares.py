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

from rl.learner.batch import ImageSet, collect_images, grids_of, image_parts
from rl.types import PromptCompletion, SampleHeader
from rollouts.model_family import VisionLanguageConfig
from rollouts.patches import Patches


def share_of_images(
    shares: Sequence[Sequence[Sequence[PromptCompletion | SampleHeader]]],
    own: Sequence[Sequence[PromptCompletion]],
    config: VisionLanguageConfig,
    *,
    budget: int,
) -> ImageSet | None:
    """The images of this rank's share `own`, in as many parts as any rank has; None if no rank has images.

    Missing parts are empty.
    """
    every = [[sample for part in share for sample in part] for share in shares]
    most = max(len(image_parts(grids_of(samples), budget=budget)) for samples in every)
    if not most:
        return None
    images = collect_images([s for part in own for s in part], config, budget=budget) or _no_image(config)
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
