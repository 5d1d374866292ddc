"""Register Kimi-VL with transformers' auto classes."""

from contextlib import suppress

from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
)

from .configuration_kimi_vl import KimiVLConfig, MoonViTConfig
from .image_processing_kimi_vl import KimiVLImageProcessor
from .modeling_kimi_vl import KimiVLForConditionalGeneration, KimiVLModel, MoonViT
from .processing_kimi_vl import KimiVLProcessor
from .tokenization_kimi_vl import TikTokenTokenizer


def register_auto_classes() -> None:
    """Register config, models, image processor, processor and tokenizer; calling it twice does no harm."""
    AutoConfig.register(KimiVLConfig.model_type, KimiVLConfig, exist_ok=True)
    AutoConfig.register(MoonViTConfig.model_type, MoonViTConfig, exist_ok=True)
    AutoModel.register(MoonViTConfig, MoonViT, exist_ok=True)
    AutoModel.register(KimiVLConfig, KimiVLModel, exist_ok=True)
    AutoModelForCausalLM.register(KimiVLConfig, KimiVLForConditionalGeneration, exist_ok=True)
    AutoModelForImageTextToText.register(KimiVLConfig, KimiVLForConditionalGeneration, exist_ok=True)
    with suppress(ImportError):  # 5.17 hides this class where torchvision is missing; `load_processor` works
        AutoImageProcessor.register(KimiVLConfig, slow_image_processor_class=KimiVLImageProcessor, exist_ok=True)
    AutoProcessor.register(KimiVLConfig, KimiVLProcessor, exist_ok=True)
    # Under the vision tower's config on purpose: a class known by name alone is preferred to the hub's code, which does
    # not run on transformers 5; a class tied to KimiVLConfig would not be.
    AutoTokenizer.register(MoonViTConfig, fast_tokenizer_class=TikTokenTokenizer, exist_ok=True)
