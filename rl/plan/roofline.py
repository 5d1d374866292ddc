"""The least work of a learner and of rollouts, counted from the model's config: floating-point operations and bytes.

Text model alone, weights of two bytes. A multiply-add is two operations; what a kernel does besides (recomputed
activations, padding, softmax, norms) is not counted, so time against these floors is never flattered.

h heads, n and r the parts of a key without and with rotation, v a value's width, c the latent's.
"""

from __future__ import annotations

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


def update_work(config: Any, *, tokens: int, predicted: int, pairs: float, adapters: int = 0) -> Work:
    """One optimizer step over `tokens` packed tokens, `predicted` of which go through the head.

    With `adapters` (their parameters) the weights are frozen: forward and the gradient of the inputs, 4 operations a
    parameter and token. Without, the weights' gradient comes on top (6), and weights and gradients move at the step.
    """
    p = products(config)
    forward = p.active * tokens + p.head * predicted
    flops = (4.0 if adapters else 6.0) * forward + 6.0 * adapters * tokens + 3 * attention_flops(config, pairs)
    weights = p.held() + p.head
    passes = 2 if adapters else 6  # reads forward and backward; gradient written and read, weights read and written
    return Work(flops, BYTES * passes * weights)


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
    flops = 2.0 * p.active * groups * prompt + 2.0 * p.head * rows
    flops += attention_flops(config, groups * causal_pairs(prompt))
    steps = [Work(flops, BYTES * (p.held() + p.head))]
    for own in range(1, new):
        step = decode_work(config, rows=rows, cached=groups * prompt + rows * own, experts=experts)
        steps.append(step + Work(absorbed_flops(config, rows * (prompt + own)), 0))
    return steps
