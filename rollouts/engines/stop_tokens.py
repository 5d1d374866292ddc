"""Which tokens end an answer and which may never be sampled."""

from __future__ import annotations

from pathlib import Path

from transformers import GenerationConfig

from kimi_vl import KimiVLProcessor
from kimi_vl.tokenization_kimi_vl import NUM_RESERVED


def stop_and_barred_ids(model_path: str | Path, processor: KimiVLProcessor) -> tuple[list[int], list[int]]:
    """Stop ids (the checkpoint's, and `<|im_end|>`), and every other reserved id: media, roles, tools, padding.

    A policy that emits an image placeholder would ask for an image that does not exist.
    """
    configured = GenerationConfig.from_pretrained(str(model_path)).eos_token_id
    stops = {configured} if isinstance(configured, int) else set(configured or ())
    stops.add(processor.tokenizer.convert_tokens_to_ids("<|im_end|>"))
    size = len(processor.tokenizer)
    return sorted(stops), [i for i in range(size - NUM_RESERVED, size) if i not in stops]
