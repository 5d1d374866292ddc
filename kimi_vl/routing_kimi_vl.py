"""Input and output of the routers of one forward pass: experts to replay, experts used, and scores.

A token's experts are the top k of `s + b`, s the sigmoid of the router's logits and b its `e_score_correction_bias`,
a buffer that post-training leaves as it is; their outputs are weighed by s alone, normalised. Logits, scores and
weights are float32 whatever the model's type: a router that rounds chooses other experts than the one that sampled.

Shapes: `P` packed tokens, `M` mixture-of-experts layers, `k` experts a token, `E` experts of a layer.

Source: DeepSeek-V3 (arXiv:2412.19437) section 2.1.2; replay: Rollout Routing Replay (arXiv:2510.11370).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3DecoderLayer, DeepseekV3MoE


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """What one router did with `P` tokens."""

    own: torch.Tensor  # [P, k] the experts that it chooses
    taken: torch.Tensor  # [P, k] the experts that were used: `own`, except for replayed tokens
    scores: torch.Tensor | None  # [P, E] float32 with gradient, if they were kept


@dataclass(slots=True, kw_only=True)
class Routing:
    """Passed as `routing=` to the text model, for one forward pass; `seen` is filled layer by layer.

    `replay` [P, M, k] are experts to use, -1 in place of the first where the router chooses. Their weights come from
    the current router, with gradient.
    """

    replay: torch.Tensor | None = None
    keep_scores: bool = False
    seen: dict[int, Routes] = field(default_factory=dict)

    def route(self, moe: DeepseekV3MoE, hidden: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Experts [P, k] and their weights [P, k] for `hidden` in mixture-of-experts layer number `layer`, from 0."""
        logits, weights, own = moe.gate(hidden)
        taken, scores = own, logits.sigmoid()
        if self.replay is not None:
            taken = torch.where(self.replay[:, layer, :1] >= 0, self.replay[:, layer], own)
            weights = expert_weights(moe.gate, scores, taken)
        if layer not in self.seen:  # gradient checkpointing runs a layer twice, with equal results
            self.seen[layer] = Routes(own=own, taken=taken, scores=scores if self.keep_scores else None)
        return taken, weights


def expert_weights(gate: Any, scores: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    """The weights of `experts` [P, k], computed from the scores [P, E] as the router computes them."""
    weights = scores.gather(1, experts)
    if gate.norm_topk_prob:
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
    return weights * gate.routed_scaling_factor


class KimiVLMoE(DeepseekV3MoE):
    """transformers' mixture of experts, whose router stays in float32 under autocast and can replay experts."""

    def forward(self, hidden_states: torch.Tensor, routing: Routing | None = None, layer: int = 0) -> torch.Tensor:
        """(B, L, H) to (B, L, H)."""
        flat = hidden_states.view(-1, hidden_states.shape[-1])
        with torch.autocast(flat.device.type, enabled=False):
            if routing is None:
                _, weights, experts = self.gate(flat)
            else:
                experts, weights = routing.route(self, flat, layer)
        mixed = self.experts(flat, experts, weights).view(hidden_states.shape)
        return mixed + self.shared_experts(hidden_states)


class KimiVLDecoderLayer(DeepseekV3DecoderLayer):
    """transformers' layer, which hands `routing` to its mixture of experts."""

    def forward(self, hidden_states: torch.Tensor, routing: Routing | None = None, **kwargs: Any) -> torch.Tensor:
        """(B, L, H) to (B, L, H)."""
        mixed, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **kwargs)
        hidden_states = hidden_states + mixed
        normed = self.post_attention_layernorm(hidden_states)
        if not isinstance(self.mlp, KimiVLMoE):
            return hidden_states + self.mlp(normed)
        layer = int(self.self_attn.layer_idx or 0) - int(self.self_attn.config.first_k_dense_replace or 0)
        return hidden_states + self.mlp(normed, routing=routing, layer=layer)


def take_routing(layer: Any) -> None:
    """Make a layer that transformers has built understand `routing=`; its weights and their names stay."""
    layer.__class__ = KimiVLDecoderLayer  # the same fields: building it again would allocate the experts twice
    if isinstance(layer.mlp, DeepseekV3MoE):
        layer.mlp.__class__ = KimiVLMoE
