"""Kimi-VL on current transformers: the model, its processor, and the hub's tensor names both ways.

Importing this package registers the classes with transformers' auto classes, so that
`AutoModelForCausalLM.from_pretrained` and `AutoProcessor.from_pretrained` open a Kimi-VL folder.
"""

from .configuration_kimi_vl import KimiVLConfig, MoonViTConfig
from .export import hub_state_dict, save_checkpoint, save_with_code
from .image_processing_kimi_vl import KimiVLImageProcessor
from .loading import load_model, load_processor, load_tokenizer
from .modeling_kimi_vl import KimiVLForConditionalGeneration, KimiVLModel, MoonViT
from .processing_kimi_vl import KimiVLProcessor
from .registration import register_auto_classes
from .tiny import TinySizes, create_tiny_checkpoint
from .tokenization_kimi_vl import KimiVLTokenizer

register_auto_classes()

__all__ = [
    "KimiVLConfig",
    "KimiVLForConditionalGeneration",
    "KimiVLImageProcessor",
    "KimiVLModel",
    "KimiVLProcessor",
    "KimiVLTokenizer",
    "MoonViT",
    "MoonViTConfig",
    "TinySizes",
    "create_tiny_checkpoint",
    "hub_state_dict",
    "load_model",
    "load_processor",
    "load_tokenizer",
    "save_checkpoint",
    "save_with_code",
]
