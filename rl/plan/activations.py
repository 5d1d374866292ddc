"""What autograd keeps between the forward and the backward pass, counted from the model's config.

`tests/rl/plan/test_activations.py` compares these counts with the tensors that a small model keeps. A number takes `b`
bytes, 2 in bfloat16 and 4 in float32; in bfloat16 RMS norms keep a copy of their input in float32.

H width of the text model, h heads, n and r the parts of a key without and with rotation, v a value's width, c the
latent's; I width of an MLP, m of an expert, k experts of a token, s shared experts, E experts of a layer; w and J the
tower's width and its MLP's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rl.learner.logprobs import CPU_TILE, TILE

_ROUTES = 200  # bytes of a token's routes in one layer: indices in int64, weights
_TILES = 6  # tiles of logits that exist at the same time in the backward pass of the head


def norm_bytes(width: int, b: int) -> float:
    """A token's share of an RMS norm: its input in float32, its output, in bfloat16 the normalized input too."""
    return width * (4 + 2 * b if b < 4 else 2 * b)


def attention_bytes(text: Any, b: int, *, flash: bool) -> float:
    """A token's share of one attention, its norm of the latents included, without the table of scores.

    Flash attention keeps queries, keys, values and its output with values as wide as keys, and one float a head. The
    kernel with a table, which CPUs take where keys and values differ in width, computes in float32.
    """
    h, key, v = text.num_attention_heads, text.qk_nope_head_dim + text.qk_rope_head_dim, text.v_head_dim
    latents = norm_bytes(text.kv_lora_rank, b) + text.qk_rope_head_dim * b
    kernel = h * (4 * key * b + 4) if flash else h * (2 * key + v) * 4
    return latents + kernel + h * v * b


def takes_fused_kernel(text: Any) -> bool:
    """Whether CPUs too run a kernel without a table of scores: where keys are as wide as values."""
    return text.qk_nope_head_dim + text.qk_rope_head_dim == text.v_head_dim


def score_bytes(text: Any, segments: Sequence[tuple[int, int]]) -> float:
    """The tables of attention that the masked kernel keeps for one layer, over `(queries, keys)` of each segment."""
    return 4.0 * text.num_attention_heads * sum(queries * keys for queries, keys in segments)


def mlp_bytes(width: int, b: int) -> float:
    """A token's share of a gated MLP: both projections, the activation and the product."""
    return 4 * width * b


def expert_bytes(text: Any, b: int) -> float:
    """A token's share of the routed and shared experts of a layer, and of the router, which computes in float32."""
    hidden, m, k = text.hidden_size, text.moe_intermediate_size, text.num_experts_per_tok
    routed = k * (2 * hidden + 4 * m) * b
    router = (hidden * 4 if b < 4 else 0) + 4 * text.n_routed_experts + _ROUTES
    return routed + router + mlp_bytes(text.n_shared_experts * m, b)


def layer_bytes(text: Any, layer: int, b: int, *, flash: bool) -> float:
    """A token's share of one decoder layer."""
    own = mlp_bytes(text.intermediate_size, b) if layer < text.first_k_dense_replace else expert_bytes(text, b)
    return 2 * norm_bytes(text.hidden_size, b) + attention_bytes(text, b, flash=flash) + own


def block_bytes(vision: Any, b: int) -> float:
    """A patch's share of one block of the tower: nine of its width, two of its MLP's."""
    return (9 * vision.hidden_size + 2 * vision.intermediate_size) * b


def text_bytes(text: Any, tokens: int, b: int, *, flash: bool, checkpointing: bool, scores: float = 0.0) -> float:
    """All decoder layers for one packed row; `scores` are the tables of one layer.

    With checkpointing each layer keeps its input alone. What a layer's backward pass needs on top is `layer_peak`.
    """
    if checkpointing:
        return float(text.num_hidden_layers * tokens * text.hidden_size * b)
    return sum(_layers(text, tokens, b, flash, scores))


def layer_peak(text: Any, tokens: int, b: int, *, flash: bool, scores: float = 0.0) -> float:
    """The largest layer: what checkpointing computes again, or what the gradients of a layer's tensors take."""
    return max(_layers(text, tokens, b, flash, scores))


def _layers(text: Any, tokens: int, b: int, flash: bool, scores: float) -> list[float]:
    return [tokens * layer_bytes(text, at, b, flash=flash) + scores for at in range(text.num_hidden_layers)]


def vision_bytes(vision: Any, patches: int, b: int, *, checkpointing: bool) -> float:
    """All blocks of the tower for the patches that pass together, and the patches' pixels in float32."""
    block, blocks = patches * block_bytes(vision, b), vision.num_hidden_layers
    pixels = patches * 3 * vision.patch_size**2 * 4
    if checkpointing:
        return pixels + blocks * patches * vision.hidden_size * b + block
    return pixels + blocks * block


def head_bytes(text: Any, tokens: int, b: int, *, trains: bool, flash: bool = True) -> float:
    """Log-probs in tiles: the tiles, the hidden states with their gradient, and the head's gradient before its cast.

    Without `flash` the tiles are those of a CPU.
    """
    tile = min(TILE if flash else CPU_TILE, tokens * text.vocab_size) * 4
    gradient = text.vocab_size * text.hidden_size * (4 + b) if trains else 0
    return _TILES * tile + tokens * text.hidden_size * (2 * b + 4) + gradient
