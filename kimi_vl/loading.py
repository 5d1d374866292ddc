"""Open a Kimi-VL checkpoint: a local folder or a hub id, with our classes and without running code from the hub."""

from pathlib import Path
from typing import Any

import torch

from .image_processing_kimi_vl import KimiVLImageProcessor
from .modeling_kimi_vl import KimiVLForConditionalGeneration
from .processing_kimi_vl import KimiVLProcessor
from .tokenization_kimi_vl import KimiVLTokenizer


def load_model(
    path: str | Path,
    *,
    dtype: torch.dtype | str = torch.float32,
    experts: str | None = None,
    attention: str | None = None,
    **kwargs: Any,
) -> KimiVLForConditionalGeneration:
    """The model in evaluation mode.

    Args:
        path: folder or hub id (`moonshotai/Kimi-VL-A3B-Thinking-2506`).
        dtype: of the weights; "auto" keeps the checkpoint's. The router bias stays in float32.
        experts: kernel of the routed experts, "grouped_mm", "batched_mm" or "eager"; None is "grouped_mm". "batched_mm"
            copies the weights for each token: training on a CPU takes it about 20 times as long.
        attention: "sdpa", "eager" or "flash_attention_2"; None lets transformers choose.
        kwargs: passed on to `from_pretrained` (`device_map`, `revision`, ...).

    Raises ValueError if the checkpoint lacks tensors, because the model would then use random weights.
    """
    loaded: Any = KimiVLForConditionalGeneration.from_pretrained(
        str(path),
        dtype=dtype,
        attn_implementation=attention,
        experts_implementation=experts,
        output_loading_info=True,
        **kwargs,
    )
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(
            f"{path} lacks {len(missing)} of the model's tensors, such as {', '.join(missing[:3])}: is it a Kimi-VL "
            "checkpoint, and was it saved or downloaded to the end?"
        )
    return model


def load_processor(path: str | Path, **kwargs: Any) -> KimiVLProcessor:
    """The processor of a checkpoint: its image settings, tokenizer and chat template."""
    images = KimiVLImageProcessor.from_pretrained(str(path), **kwargs)
    return KimiVLProcessor(image_processor=images, tokenizer=load_tokenizer(path, **kwargs))


def load_tokenizer(path: str | Path, **kwargs: Any) -> KimiVLTokenizer:
    """The tokenizer of a checkpoint, padding on the left."""
    return KimiVLTokenizer.from_pretrained(str(path), **kwargs)
