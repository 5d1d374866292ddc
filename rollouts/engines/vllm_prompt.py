"""A prompt as vLLM takes it: token ids, and the patches that we cut ourselves: all engines see the same image."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature
from vllm.inputs.engine import mm_input, tokens_input  # pyright: ignore[reportMissingImports]
from vllm.multimodal.inputs import (  # pyright: ignore[reportMissingImports]
    MultiModalFieldConfig,
    MultiModalKwargsItems,
    PlaceholderRange,
)

from rollouts.model_family import VisionLanguageConfig
from rollouts.types import Prompt


class VllmPrompt:
    """A prompt whose images are prepared once, for all samples of its group."""

    def __init__(self, prompt: Prompt, *, config: VisionLanguageConfig, dtype: torch.dtype) -> None:
        self._ids: list[int] = prompt.input_ids.tolist()
        self._grids = prompt.image_grid_hws
        if not len(self._grids):
            return
        sizes, pixels = torch.from_numpy(self._grids.prod(-1)), prompt.pixel_values
        patches = {
            "pixel_values": torch.from_numpy(pixels).to(dtype),
            "image_grid_hws": torch.from_numpy(self._grids),
        }
        self._items = MultiModalKwargsItems.from_hf_inputs(
            BatchFeature(patches),
            {
                "pixel_values": MultiModalFieldConfig.flat_from_sizes("image", sizes),
                "image_grid_hws": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            },
        )
        self._places = _places(prompt, config)
        pieces = np.split(pixels, np.cumsum(self._grids.prod(-1))[:-1])
        self._digests = [
            hashlib.sha256(grid.tobytes() + piece.tobytes()).hexdigest()
            for grid, piece in zip(self._grids, pieces, strict=True)
        ]

    def inputs(self, written: list[int], *, version: int) -> Any:
        """The prompt with what was written so far. What vLLM keeps of it is for requests of the same version only."""
        ids, salt = self._ids + written, str(version)
        if not len(self._grids):
            return tokens_input(ids, cache_salt=salt)
        return mm_input(
            ids,
            self._items,
            {"image": [f"{version}-{digest}" for digest in self._digests]},
            {"image": self._places},
            cache_salt=salt,
        )


def _places(prompt: Prompt, config: VisionLanguageConfig) -> list[PlaceholderRange]:
    """Where each image stands: its tokens are neighbours, and the images come in order."""
    found = np.flatnonzero(prompt.input_ids == config.image_token_id)
    lengths = prompt.image_grid_hws.prod(-1) // math.prod(config.merge_shape)
    if len(found) != lengths.sum():
        raise ValueError(f"task {prompt.task.id}: {len(found)} image tokens, but the images make {int(lengths.sum())}")
    starts = np.cumsum(lengths) - lengths
    return [PlaceholderRange(offset=int(found[s]), length=int(n)) for s, n in zip(starts, lengths, strict=True)]
