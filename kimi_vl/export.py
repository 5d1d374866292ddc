"""Write a checkpoint folder that others can open: with our package, with transformers alone, or with vLLM.

The tensors have the hub's names. `save_with_code` adds the Python files of this package and an `auto_map`, so that
`AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` works where only torch, transformers, accelerate
and Pillow are installed.
"""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.core_model_loading import revert_weight_conversion

from .modeling_kimi_vl import KimiVLForConditionalGeneration
from .processing_kimi_vl import TURN_END, KimiVLProcessor
from .tokenization_kimi_vl import backend_ranks, write_ranks

STOP_TOKENS = ("[EOS]", TURN_END)
"""An answer ends at either: the chat template closes a turn with the second."""

CODE_FILES = (
    "attention_kimi_vl.py",
    "configuration_kimi_vl.py",
    "image_processing_kimi_vl.py",
    "modeling_kimi_vl.py",
    "norm_kimi_vl.py",
    "processing_kimi_vl.py",
    "routing_kimi_vl.py",
    "tokenization_kimi_vl.py",
    "weights_kimi_vl.py",
)

_MODEL = "modeling_kimi_vl.KimiVLForConditionalGeneration"
MODEL_AUTO_MAP = {
    "AutoConfig": "configuration_kimi_vl.KimiVLConfig",
    "AutoModel": "modeling_kimi_vl.KimiVLModel",
    "AutoModelForCausalLM": _MODEL,
    "AutoModelForImageTextToText": _MODEL,
}
PROCESSOR_AUTO_MAP = {
    "AutoImageProcessor": "image_processing_kimi_vl.KimiVLImageProcessor",
    "AutoProcessor": "processing_kimi_vl.KimiVLProcessor",
}


def save_checkpoint(
    model: KimiVLForConditionalGeneration, processor: KimiVLProcessor, folder: str | Path, **kwargs: Any
) -> Path:
    """Write weights, config, processor, tokenizer, chat template and `generation_config.json`; no code.

    `kwargs` go to the model's `save_pretrained` (`max_shard_size`, `state_dict`). Returns `folder`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    model.generation_config = _generation_config(model, processor.tokenizer)
    model.save_pretrained(str(folder), **kwargs)
    _save_processor(processor, folder)
    return folder


def save_linked(model: KimiVLForConditionalGeneration, processor: KimiVLProcessor, folder: Path, weights: Path) -> Path:
    """`save_checkpoint` with the weight files of the checkpoint in the folder `weights`, which take no more disk space.

    They are hard links, or copies on another file system. `model` may be on the meta device. Returns `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    _generation_config(model, processor.tokenizer).save_pretrained(folder)
    _save_processor(processor, folder)
    for file in sorted(weights.glob("*.safetensors*")):
        _link(file.resolve(), folder / file.name)
    return folder


def _save_processor(processor: KimiVLProcessor, folder: Path) -> None:
    tokenizer: Any = processor.tokenizer
    processor.save_pretrained(folder)
    write_ranks(folder / "tiktoken.model", backend_ranks(tokenizer.backend_tokenizer))


def _link(file: Path, link: Path) -> None:
    link.unlink(missing_ok=True)
    try:
        os.link(file, link)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(file, link)


def hub_state_dict(model: KimiVLForConditionalGeneration) -> dict[str, torch.Tensor]:
    """The model's tensors under the hub's names and in its layout, as other engines take them; nothing is written."""
    return hub_names(model, model.state_dict())


def hub_names(model: KimiVLForConditionalGeneration, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """`tensors`, named as in `model`'s state dict, under the hub's names; the model may be on the meta device."""
    return revert_weight_conversion(model, dict(tensors))


def save_with_code(
    model: KimiVLForConditionalGeneration, processor: KimiVLProcessor, folder: str | Path, **kwargs: Any
) -> Path:
    """`save_checkpoint`, and the code that opens it with `trust_remote_code=True`. Returns `folder`."""
    folder = save_checkpoint(model, processor, folder, **kwargs)
    for name in CODE_FILES:
        shutil.copyfile(Path(__file__).parent / name, folder / name)
    _update(folder / "config.json", {"auto_map": MODEL_AUTO_MAP})
    _update(folder / "preprocessor_config.json", {"auto_map": PROCESSOR_AUTO_MAP})
    return folder


def _generation_config(model: KimiVLForConditionalGeneration, tokenizer: Any) -> GenerationConfig:
    values = model.generation_config.to_diff_dict()
    values.pop("_from_model_config", None)  # transformers would derive the stop ids from config.json again
    values["eos_token_id"] = [tokenizer.convert_tokens_to_ids(token) for token in STOP_TOKENS]
    values["pad_token_id"] = tokenizer.pad_token_id
    return GenerationConfig(**values)


def _update(path: Path, values: dict[str, Any]) -> None:
    content = {**json.loads(path.read_text(encoding="utf-8")), **values}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
