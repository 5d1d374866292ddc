"""The one place that knows which model families there are, and what the pipeline needs of each.

A family is a package with a module that has the members of `ModelFamily`, and one line in `FAMILIES`. Nothing else in
`rollouts` or `rl` names a family. The classes below that derive from transformers' declare what a family's config,
processor and model have beyond it. They are for readers and the type checker: a family's package imports nothing of
ours, so its classes do not inherit from them. `tests/rollouts/test_model_family.py` compares both.

Shapes: P image patches, N images, T image tokens, B rows, L tokens of a row, H width of the text model, W width of the
vision tower, S packed tokens, M mixture-of-experts layers, k experts of a token, E experts of a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

import kimi_vl.family
from configs.errors import UserError
from configs.text import with_article


class VisionLanguageConfig(PreTrainedConfig):
    """Sizes of a model; those of the language model are in `text_config`, those of the tower in `vision_config`."""

    model_type: str
    text_config: Any
    vision_config: Any
    image_token_id: int

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image patch."""
        raise NotImplementedError

    @property
    def merge_shape(self) -> tuple[int, int]:
        """Patches down and across that become one image token."""
        raise NotImplementedError

    @property
    def rope_base(self) -> float:
        """Base of the text model's rotary positions."""
        raise NotImplementedError

    @property
    def context(self) -> int:
        """The most tokens of a sequence."""
        raise NotImplementedError


class VisionLanguageProcessor(ProcessorMixin):
    """Text and images to `input_ids` `[B, L]`, `pixel_values` `[P, *patch_shape]` and `image_grid_hws` `[N, 2]`."""

    tokenizer: Any
    image_token: str  # the placeholder of an image in text
    image_text: str  # an image in text, as the chat template writes it: the placeholder and what is around it
    image_token_id: int
    turn_end: str  # what closes a turn of the chat template

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image patch."""
        raise NotImplementedError

    @property
    def level_values(self) -> np.ndarray | None:
        """`[channels, 256]` float32: the patch values of 8-bit levels, `pixel_values` under `do_normalize: False`.

        None for a processor whose patches are floats only.
        """
        raise NotImplementedError

    def __call__(
        self, images: Any = None, text: Any = None, *, return_tensors: str | None = None, **kwargs: Any
    ) -> Any:
        """Tokenize text with its images. Raises ValueError if placeholders and images differ in number."""
        raise NotImplementedError


class VisionLanguageModel(PreTrainedModel):
    """A vision tower, a text model and a vocabulary head.

    `text_model` takes `inputs_embeds`, `position_ids`, `routing=`, and passes other keywords on to its attention.
    """

    config: VisionLanguageConfig
    lm_head: nn.Linear

    @property
    def text_model(self) -> Any:
        """The language model: embeddings to hidden states, without the head."""
        raise NotImplementedError

    @property
    def vision_tower(self) -> nn.Module:
        """The module that turns patches into patch features; the projector to the text model's width is none of it."""
        raise NotImplementedError

    @property
    def vision_modules(self) -> tuple[nn.Module, ...]:
        """All modules that turn patches into image features."""
        raise NotImplementedError

    def shard_units(self) -> list[nn.Module]:
        """The modules to shard, inner before outer, without the model itself. Tied weights belong to the model."""
        raise NotImplementedError

    def encode_images(self, pixel_values: torch.Tensor, image_grid_hws: torch.Tensor) -> torch.Tensor:
        """`[P, *patch_shape]` patches and `[N, 2]` grids to `[T, H]` features in the images' order."""
        raise NotImplementedError

    def encode_patches(self, pixel_values: torch.Tensor, image_grid_hws: torch.Tensor) -> torch.Tensor:
        """`[P, *patch_shape]` patches and `[N, 2]` grids to `[P, W]`, the tower's own features of every patch."""
        raise NotImplementedError

    def embed(self, input_ids: torch.Tensor, image_features: torch.Tensor | None = None) -> torch.Tensor:
        """`[B, L]` ids and `[T, H]` features to `[B, L, H]`; features replace the placeholders in reading order."""
        raise NotImplementedError


class Routes(Protocol):
    """What one router did with S tokens."""

    @property
    def own(self) -> torch.Tensor:
        """`[S, k]`, the experts that it chooses."""
        ...

    @property
    def taken(self) -> torch.Tensor:
        """`[S, k]`, the experts that were used: `own`, except for replayed tokens."""
        ...

    @property
    def scores(self) -> torch.Tensor | None:
        """`[S, E]` float32 with gradient, if they were kept."""
        ...


class Routing(Protocol):
    """Passed to the text model as `routing=` for one forward pass, which fills `seen` by layer."""

    replay: torch.Tensor | None  # [S, M, k] experts to use, -1 where the router chooses

    @property
    def seen(self) -> Mapping[int, Routes]:
        """What each router did, by the number of its mixture-of-experts layer."""
        ...


class ModelFamily(Protocol):
    """The members of a family's module. `path` is a folder or a hub id."""

    TITLE: str  # as people write it
    TAGS: tuple[str, ...]  # of its models on the hub
    LICENCES: Mapping[str, str]  # hub id of published weights -> licence
    LORA_MODULES: Mapping[str, str]  # target of a recipe -> regular expression over full names of modules
    LORA_PARAMETERS: Mapping[str, tuple[str, ...]]  # target of a recipe -> ends of names of fused parameters

    def load_config(self, path: str | Path) -> VisionLanguageConfig:
        """The config."""
        ...

    def published_config(self) -> VisionLanguageConfig:
        """The config of the published weights that `LICENCES` lists."""
        ...

    def tiny_config(self, sizes: Mapping[str, int]) -> VisionLanguageConfig:
        """The config of `create_tiny_checkpoint`, with the largest vocabulary that a corpus can give."""
        ...

    def load_model(self, path: str | Path, *, dtype: torch.dtype | str = ...) -> VisionLanguageModel:
        """The model, in evaluation mode. Raises ValueError if the checkpoint lacks tensors."""
        ...

    def load_processor(self, path: str | Path) -> VisionLanguageProcessor:
        """The processor with its tokenizer, which pads on the left."""
        ...

    def new_model(self, config: VisionLanguageConfig) -> VisionLanguageModel:
        """A model whose weights are still to be loaded."""
        ...

    def new_routing(self, *, replay: torch.Tensor | None = None, keep_scores: bool = False) -> Routing:
        """Experts to use, or an observer of the routers' choice; `keep_scores` keeps their scores."""
        ...

    def stop_and_barred_ids(self, path: str | Path, processor: VisionLanguageProcessor) -> tuple[list[int], list[int]]:
        """The tokens that end a completion, and those that must never be sampled."""
        ...

    def hub_names(self, model: VisionLanguageModel, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Tensors named as in the model's state dict, under the checkpoint's names and in its layout."""
        ...

    def save_with_code(
        self, model: VisionLanguageModel, processor: VisionLanguageProcessor, folder: str | Path
    ) -> Path:
        """Write a folder that opens with `trust_remote_code=True` where only transformers is installed."""
        ...

    def extend_context(self, path: str | Path, folder: str | Path, *, rope_base: float, context: int) -> Path:
        """Write the checkpoint to `folder` with another RoPE base and longest sequence, and the same weights."""
        ...

    def create_tiny_checkpoint(
        self, folder: Path, *, corpus: Iterable[str], sizes: Mapping[str, int] | None = None, seed: int = 0
    ) -> Path:
        """Write a tiny checkpoint with random weights, whose tokenizer is trained on `corpus`."""
        ...


class UnknownFamily(UserError, ValueError):
    """A checkpoint of a model that no family stands for."""


FAMILIES: Mapping[str, ModelFamily] = {  # by `model_type` of config.json
    "kimi_vl": cast(ModelFamily, kimi_vl.family),
}
TINY_FAMILY = "kimi_vl"  # the family of `model.path: tiny`


def family_of(config: VisionLanguageConfig) -> ModelFamily:
    """The family of a loaded model's config."""
    return FAMILIES[str(config.model_type)]


def family_at(path: str | Path) -> ModelFamily:
    """The family of the checkpoint in a folder or under a hub id.

    Raises UnknownFamily for any other model, OSError where there is no config.json.
    """
    try:
        kind = PreTrainedConfig.get_config_dict(str(path))[0].get("model_type")
    except (AttributeError, TypeError) as error:
        raise UnknownFamily(f"{path}: its config.json does not hold a JSON object") from error
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UnknownFamily(
            f"{path}: is {with_article(kind or 'nameless')} model (model_type); must be {' or '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


def known_licence(hub_id: str) -> str | None:
    """The licence of published weights; None where no family knows them."""
    return next((f.LICENCES[hub_id] for f in FAMILIES.values() if hub_id in f.LICENCES), None)
