"""Kimi-VL as a model family: the module that `rollouts.model_family.FAMILIES` names, see `ModelFamily` there.

It is the package's only door to the pipeline. What the pipeline needs of a loaded model, config or processor stands on
those classes (`text_model`, `patch_shape`, `turn_end`, ...); everything else of the family stands here.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from transformers import GenerationConfig

from .configuration_kimi_vl import KimiVLConfig
from .export import hub_names, save_linked, save_with_code
from .loading import load_model, load_processor
from .modeling_kimi_vl import KimiVLForConditionalGeneration
from .processing_kimi_vl import KimiVLProcessor
from .routing_kimi_vl import Routing
from .tiny import create_tiny_checkpoint as _create_tiny_checkpoint
from .tiny import tiny_config as _tiny_config
from .tiny import tiny_sizes
from .tokenization_kimi_vl import NUM_RESERVED

TITLE = "Kimi-VL"
TAGS = ("kimi_vl",)
LICENCES: Mapping[str, str] = {
    "moonshotai/Kimi-VL-A3B-Instruct": "mit",
    "moonshotai/Kimi-VL-A3B-Thinking": "mit",
    "moonshotai/Kimi-VL-A3B-Thinking-2506": "mit",
}
LORA_MODULES: Mapping[str, str] = {
    "attention": r".*language_model.*\.self_attn\.(q_proj|q_a_proj|q_b_proj|kv_a_proj_with_mqa|kv_b_proj|o_proj)",
    "mlp": r".*language_model.*\.(gate_proj|up_proj|down_proj)",  # dense layers and shared experts
    "vision": r".*vision_tower\.layers.*\.(q_proj|k_proj|v_proj|proj|fc1|fc2)",
}
LORA_PARAMETERS: Mapping[str, tuple[str, ...]] = {"experts": ("experts.gate_up_proj", "experts.down_proj")}


def load_config(path: str | Path) -> KimiVLConfig:
    """The config of a folder or hub id."""
    return KimiVLConfig.from_pretrained(str(path))


def published_config() -> KimiVLConfig:
    """The config of the published weights that `LICENCES` lists; they have the same sizes."""
    return KimiVLConfig()


def tiny_config(sizes: Mapping[str, int]) -> KimiVLConfig:
    """The config of `create_tiny_checkpoint`, with the largest vocabulary that a corpus can give."""
    tiny = tiny_sizes(**sizes)
    return _tiny_config(tiny, num_tokens=256 + tiny.num_merges)


def new_model(config: KimiVLConfig) -> KimiVLForConditionalGeneration:
    """A model whose weights are still to be loaded; under `torch.device("meta")` it takes no memory."""
    return KimiVLForConditionalGeneration(config)


def new_routing(*, replay: torch.Tensor | None = None, keep_scores: bool = False) -> Routing:
    """The `routing=` of one forward pass of the text model; see `kimi_vl.routing_kimi_vl`."""
    return Routing(replay=replay, keep_scores=keep_scores)


def stop_and_barred_ids(path: str | Path, processor: KimiVLProcessor) -> tuple[list[int], list[int]]:
    """Stop ids (the checkpoint's own and the end of a turn), and every other reserved id.

    Media, role, tool and padding tokens are barred: an image placeholder would stand for an image that does not exist.
    """
    tokenizer: Any = processor.tokenizer
    configured = GenerationConfig.from_pretrained(str(path)).eos_token_id
    stops = {configured} if isinstance(configured, int) else set(configured or ())
    stops.add(tokenizer.convert_tokens_to_ids(processor.turn_end))
    size = len(tokenizer)
    return sorted(stops), [i for i in range(size - NUM_RESERVED, size) if i not in stops]


def extend_context(path: str | Path, folder: str | Path, *, rope_base: float, context: int) -> Path:
    """Write the checkpoint to `folder` with another RoPE base and a longest sequence of `context` tokens.

    The weights stay as they are (Kimi-VL §2.3, long-context activation) and are not read: their files are linked. The
    tokenizer's limit follows.
    """
    config, processor = load_config(path), load_processor(path)
    text, tokenizer = config.text_config, processor.tokenizer
    text.rope_parameters = {**text.rope_parameters, "rope_theta": rope_base}
    text.max_position_embeddings = tokenizer.model_max_length = context
    with torch.device("meta"):
        model = new_model(config)
    local = Path(path) if Path(path).is_dir() else Path(snapshot_download(str(path), allow_patterns="*.safetensors*"))
    return save_linked(model, processor, Path(folder), local)


def create_tiny_checkpoint(
    folder: Path, *, corpus: Iterable[str], sizes: Mapping[str, int] | None = None, seed: int = 0
) -> Path:
    """Write a tiny checkpoint with random weights; `sizes` are arguments of `kimi_vl.tiny.tiny_sizes`."""
    return _create_tiny_checkpoint(folder, corpus=corpus, sizes=tiny_sizes(**(sizes or {})), seed=seed)


__all__ = [
    "LICENCES",
    "LORA_MODULES",
    "LORA_PARAMETERS",
    "TAGS",
    "TITLE",
    "create_tiny_checkpoint",
    "extend_context",
    "hub_names",
    "load_config",
    "load_model",
    "load_processor",
    "new_model",
    "new_routing",
    "published_config",
    "save_with_code",
    "stop_and_barred_ids",
    "tiny_config",
]
