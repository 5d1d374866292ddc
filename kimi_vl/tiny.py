"""Make a tiny Kimi-VL with random weights: the real architecture, files and names at a size for a laptop."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
from torch import nn

from .configuration_kimi_vl import KimiVLConfig
from .export import save_checkpoint
from .image_processing_kimi_vl import KimiVLImageProcessor
from .modeling_kimi_vl import KimiVLForConditionalGeneration
from .processing_kimi_vl import KimiVLProcessor
from .tokenization_kimi_vl import NUM_RESERVED, PATTERN, KimiVLTokenizer, build_backend, raw_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TinySizes:
    """Sizes of a tiny checkpoint; the defaults make about 1.4 million parameters.

    `num_merges` BPE merges are learned on top of the 256 bytes; `init_pos_emb` is the side of the position table in
    patches; `in_token_limit` the patches of an image above which it is scaled down.
    """

    hidden_size: int = 128
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    n_routed_experts: int = 8
    num_experts_per_tok: int = 2
    n_shared_experts: int = 1
    first_k_dense_replace: int = 1
    moe_intermediate_size: int = 96
    intermediate_size: int = 384
    kv_lora_rank: int = 64
    qk_nope_head_dim: int = 16
    qk_rope_head_dim: int = 16
    v_head_dim: int = 32
    rope_theta: float = 1000.0
    max_position_embeddings: int = 1024
    vision_hidden_size: int = 64
    vision_num_hidden_layers: int = 2
    vision_num_attention_heads: int = 4
    vision_intermediate_size: int = 192
    init_pos_emb: int = 16
    num_merges: int = 256
    in_token_limit: int = 1024


def tiny_sizes(*, hidden_size: int = 128, num_hidden_layers: int = 3, **others: int) -> TinySizes:
    """Sizes in the proportions of the defaults for a text model of this width, a multiple of 32, and depth.

    `others` are fields of `TinySizes` that go before.
    """
    in_proportion = {
        "num_attention_heads": hidden_size // 32,
        "moe_intermediate_size": hidden_size * 3 // 4,
        "intermediate_size": hidden_size * 3,
        "vision_hidden_size": hidden_size // 2,
        "vision_num_hidden_layers": max(1, num_hidden_layers - 1),
    }
    return TinySizes(hidden_size=hidden_size, num_hidden_layers=num_hidden_layers, **(in_proportion | others))


def create_tiny_checkpoint(
    folder: Path, *, corpus: Iterable[str], sizes: TinySizes = TinySizes(), seed: int = 0
) -> Path:
    """Write a checkpoint that `load_model` and `load_processor` open; the same arguments give the same bytes.

    `corpus` is text like that which the model will read and write: the BPE merges are learned from it. Digits are never
    merged, so that numbers are read digit by digit. Returns `folder`.
    """
    tokens = train_bpe(corpus, sizes.num_merges)
    tokenizer = KimiVLTokenizer(tokenizer_object=build_backend(tokens), model_max_length=sizes.max_position_embeddings)
    images = KimiVLImageProcessor(in_token_limit=sizes.in_token_limit)
    processor = KimiVLProcessor(image_processor=images, tokenizer=tokenizer)
    return save_checkpoint(build_tiny_model(tiny_config(sizes, num_tokens=len(tokens)), seed=seed), processor, folder)


# Every prompt has these words, but a corpus of questions and answers does not. Without them here, they would be
# spelled letter by letter.
_TEMPLATE_WORDS = " system You are a helpful assistant user image\nsystem\nuser\nassistant\nimage\nYou"


def train_bpe(corpus: Iterable[str], num_merges: int) -> list[bytes]:
    """The 256 bytes and at most `num_merges` merges learned from `corpus`, in order of rank; digits stay alone."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=256 + num_merges,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        special_tokens=[],
    )
    trained.train_from_iterator((text + _TEMPLATE_WORDS for text in corpus), trainer)
    merges = json.loads(trained.to_str())["model"]["merges"]
    learned = dict.fromkeys(raw_bytes(left) + raw_bytes(right) for left, right in merges)
    return [bytes([byte]) for byte in range(256)] + list(learned)


def tiny_config(sizes: TinySizes, *, num_tokens: int) -> KimiVLConfig:
    """The config of a tiny checkpoint whose tokenizer has `num_tokens` BPE ranks."""
    ids: dict[str, Any] = {
        "bos_token_id": num_tokens,
        "eos_token_id": num_tokens + 1,
        "pad_token_id": num_tokens + NUM_RESERVED - 1,
    }
    text = {name: value for name, value in asdict(sizes).items() if name in _TEXT_FIELDS}
    vision = {
        "hidden_size": sizes.vision_hidden_size,
        "num_hidden_layers": sizes.vision_num_hidden_layers,
        "num_attention_heads": sizes.vision_num_attention_heads,
        "intermediate_size": sizes.vision_intermediate_size,
        "init_pos_emb_height": sizes.init_pos_emb,
        "init_pos_emb_width": sizes.init_pos_emb,
    }
    return KimiVLConfig(
        text_config={
            **text,
            **ids,
            "vocab_size": num_tokens + NUM_RESERVED,
            "num_key_value_heads": sizes.num_attention_heads,
            "initializer_range": sizes.hidden_size**-0.5,
        },
        vision_config=vision,
        media_placeholder_token_id=num_tokens + 21,
        **ids,
    )


_TEXT_FIELDS = frozenset(
    name
    for name in TinySizes.__dataclass_fields__
    if not name.startswith("vision_") and name not in ("init_pos_emb", "num_merges", "in_token_limit")
)


def build_tiny_model(config: KimiVLConfig, *, seed: int) -> KimiVLForConditionalGeneration:
    """A model with weights scaled for its width: matrices by 1 / sqrt(inputs), positions small beside the patches."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KimiVLForConditionalGeneration(config).eval()
        _initialize(model, depth=config.text_config.num_hidden_layers)
    return model


@torch.no_grad()
def _initialize(model: nn.Module, *, depth: int) -> None:
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:
            continue  # norms are ones and biases zeros already
        inputs = parameter[0].numel() if "experts" not in name else parameter.shape[-1]
        if "position_embeddings" in name:
            std = 0.02
        elif "embed_tokens" in name or "lm_head" in name:
            std = parameter.shape[-1] ** -0.5
        else:
            std = inputs**-0.5
        if name.endswith(("o_proj.weight", "down_proj", "down_proj.weight", "attn.proj.weight", "fc2.weight")):
            std /= (2 * depth) ** 0.5  # keeps the residual stream's scale, as in GPT-2
        nn.init.normal_(parameter, std=std)
