"""The least work of a learner and of rollouts, counted from the model's config: floating-point operations and bytes.

Bytes are those of the text model alone, weights of two bytes. A multiply-add is two operations; what a kernel does
besides (recomputed activations, padding, softmax, norms) is not counted, so time against these floors is never
flattered.

h heads, n and r the parts of a key without and with rotation, v a value's width, c the latent's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BYTES = 2  # bytes of a weight, a gradient or a cached number: bfloat16


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations and bytes moved. Adding two gives the work of both."""

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def seconds(self, peak_flops: float, peak_bytes: float) -> float:
        """The roofline: whichever of the two takes longer."""
        return max(self.flops / peak_flops, self.bytes / peak_bytes)


@dataclass(frozen=True, slots=True)
class Passes:
    """How often a forward and backward pass repeats the operations of a forward pass."""

    products: float  # operations a parameter and token: 2 forward, 2 for the inputs' gradient, 2 for the weights'
    mixing: float  # times the forward pass of attention, whose backward pass has twice its operations


NOT_RUN, FORWARD, FROZEN, TRAINED = Passes(0, 0), Passes(2, 1), Passes(4, 3), Passes(6, 3)


@dataclass(frozen=True, slots=True)
class Products:
    """Parameters of the matrices of a text model, by how often a token meets them."""

    attention: int  # of all layers
    dense: int  # MLPs of the first layers
    shared: int  # routers and shared experts of all layers
    expert: int  # one routed expert of one layer
    moe_layers: int
    experts: int  # in a layer
    chosen: int  # by a token, in a layer
    head: int

    @property
    def active(self) -> int:
        """Parameters that one token is multiplied with, without the head."""
        return self.attention + self.dense + self.shared + self.moe_layers * self.chosen * self.expert

    def held(self, experts: float | None = None) -> float:
        """Parameters that are read, without the head, if `experts` of each layer are used (None: all)."""
        met = self.experts if experts is None else experts
        return self.attention + self.dense + self.shared + self.moe_layers * met * self.expert


def products(config: Any) -> Products:
    """Count the matrices of a config's text model."""
    c = config.text_config
    heads, hidden = c.num_attention_heads, c.hidden_size
    wide = heads * (c.qk_nope_head_dim + c.qk_rope_head_dim)
    query = hidden * wide if c.q_lora_rank is None else c.q_lora_rank * (hidden + wide)
    down, up = c.kv_lora_rank + c.qk_rope_head_dim, heads * (c.qk_nope_head_dim + c.v_head_dim)
    attention = query + hidden * down + c.kv_lora_rank * up + heads * c.v_head_dim * hidden
    dense_layers = c.first_k_dense_replace
    moe_layers = c.num_hidden_layers - dense_layers
    expert = 3 * hidden * c.moe_intermediate_size
    return Products(
        attention=c.num_hidden_layers * attention,
        dense=dense_layers * 3 * hidden * c.intermediate_size,
        shared=moe_layers * (hidden * c.n_routed_experts + c.n_shared_experts * expert),
        expert=expert,
        moe_layers=moe_layers,
        experts=c.n_routed_experts,
        chosen=c.num_experts_per_tok,
        head=hidden * c.vocab_size,
    )


def causal_pairs(length: int, before: int = 0) -> float:
    """Pairs of a query and a key that it sees: `length` tokens, each after itself and `before` more."""
    return length * before + length * (length + 1) / 2


def attention_flops(config: Any, pairs: float) -> float:
    """Scores and mixing, forward, in all layers: 2 h (n + r + v) a pair."""
    c = config.text_config
    width = c.qk_nope_head_dim + c.qk_rope_head_dim + c.v_head_dim
    return 2.0 * c.num_hidden_layers * c.num_attention_heads * width * pairs


def text_flops(config: Any, passes: Passes, *, tokens: int, predicted: int, pairs: float) -> float:
    """Operations of the text model on `tokens` packed tokens, `predicted` of which go through the head."""
    p = products(config)
    matrices = p.active * tokens + p.head * predicted
    return passes.products * matrices + passes.mixing * attention_flops(config, pairs)


def image_flops(config: Any, passes: Passes, patches: Sequence[int]) -> float:
    """Operations of the vision tower and the projector on images of `patches` patches each.

    A layer has four square matrices and two of the MLP. Every patch sees all patches of its image: 4 w a pair. Pixels
    need no gradient.
    """
    tower, merged = config.vision_config, math.prod(config.merge_shape)
    width, layers = tower.hidden_size, tower.num_hidden_layers
    layer = 4 * width**2 + 2 * width * tower.intermediate_size
    wide = merged * width
    projector = wide * (wide + config.text_config.hidden_size) / merged
    pairs = sum(count**2 for count in patches)
    of_pixels = passes.products - 2 if passes.products > 2 else passes.products
    matrices = of_pixels * math.prod(config.patch_shape) * width + passes.products * (layers * layer + projector)
    return matrices * sum(patches) + passes.mixing * 4.0 * width * layers * pairs


def update_work(config: Any, *, tokens: int, predicted: int, pairs: float, adapters: int = 0) -> Work:
    """One optimizer step over `tokens` packed tokens, `predicted` of which go through the head.

    With `adapters` (their parameters) the weights are frozen: forward and the gradient of the inputs, 4 operations a
    parameter and token. Without, the weights' gradient comes on top (6), and weights and gradients move at the step.
    """
    p, passes = products(config), FROZEN if adapters else TRAINED
    flops = text_flops(config, passes, tokens=tokens, predicted=predicted, pairs=pairs) + 6.0 * adapters * tokens
    weights = p.held() + p.head
    moves = 2 if adapters else 6  # reads forward and backward; gradient written and read, weights read and written
    return Work(flops, BYTES * moves * weights)


def decode_work(config: Any, *, rows: int, cached: float, experts: float) -> Work:
    """One token of each of `rows` samples by absorbed attention over `cached` latents, `experts` met in each layer.

    `cached` is counted as it is read: a group's prompt once, its samples' own tokens each.
    """
    p, c = products(config), config.text_config
    latent = c.kv_lora_rank + c.qk_rope_head_dim
    moved = p.held(experts) + p.head + c.num_hidden_layers * latent * cached
    return Work(2.0 * (p.active + p.head) * rows, BYTES * moved)


def absorbed_flops(config: Any, pairs: float) -> float:
    """Scores and mixing of absorbed attention in all layers: 2 h (2 c + r) a pair."""
    c = config.text_config
    return 2.0 * c.num_hidden_layers * c.num_attention_heads * (2 * c.kv_lora_rank + c.qk_rope_head_dim) * pairs


def rollout_work(config: Any, *, groups: int, samples: int, prompt: int, new: int, experts: float) -> list[Work]:
    """The prefill of `groups` prompts, then each decode step of `groups * samples` samples of `new` tokens.

    The first token comes from the prefill, so there are `new - 1` steps.
    """
    p, rows = products(config), groups * samples
    pairs = groups * causal_pairs(prompt)
    flops = text_flops(config, FORWARD, tokens=groups * prompt, predicted=rows, pairs=pairs)
    steps = [Work(flops, BYTES * (p.held() + p.head))]
    for own in range(1, new):
        step = decode_work(config, rows=rows, cached=groups * prompt + rows * own, experts=experts)
        steps.append(step + Work(absorbed_flops(config, rows * (prompt + own)), 0))
    return steps


def generation_flops(config: Any, *, prompt: int, new: Sequence[int], patches: Sequence[int] = ()) -> float:
    """Operations of one group: its prompt of `prompt` tokens and its images once, and samples of `new` tokens each."""
    p = products(config)
    steps = sum(count - 1 for count in new)
    pairs = sum((count - 1) * prompt + count * (count - 1) / 2 for count in new)
    read = text_flops(config, FORWARD, tokens=prompt, predicted=len(new), pairs=causal_pairs(prompt))
    decoded = 2.0 * (p.active + p.head) * steps + absorbed_flops(config, pairs)
    return read + decoded + image_flops(config, FORWARD, patches)
