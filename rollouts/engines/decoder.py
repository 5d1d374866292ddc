"""A language model with latent attention (DeepSeek-V3's), decoded over its latents.

Prompts are read once, and a step feeds one token to every running row.

Attention runs in the compressed space (DeepSeek-V2 §2.1.2, "absorbed" projections): a cached token is one latent of
kv_lora_rank + qk_rope_head_dim numbers for all heads, and nothing is expanded per step.
Shapes: G prompts, L prompt tokens, R rows, C tokens written before, H hidden, K latent width, M mixture-of-experts
layers, k experts a token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3DecoderLayer,
    DeepseekV3Model,
    DeepseekV3MoE,
    apply_rotary_pos_emb,
    apply_rotary_pos_emb_interleave,
)

from rollouts.engines.kv_cache import StepPlan


class LatentDecoder:
    """Prefill and decode steps of the text model. It reads the module's weights and owns none."""

    def __init__(self, text_model: DeepseekV3Model) -> None:
        self.model = text_model
        self.layers = cast(list[DeepseekV3DecoderLayer], text_model.layers)
        self.rank = text_model.config.kv_lora_rank
        self.width = self.rank + text_model.config.qk_rope_head_dim
        self.rotate = apply_rotary_pos_emb_interleave if text_model.config.rope_interleave else apply_rotary_pos_emb

    @property
    def norms(self) -> list[nn.Module]:
        """A module of each layer that every prefill and every decoding step calls."""
        return [layer.post_attention_layernorm for layer in self.layers]

    def new_latents(self, *shape: int) -> Tensor:
        """Uninitialised latents `[layers, *shape, K]`."""
        weight = self.model.embed_tokens.weight
        return weight.new_empty(len(self.layers), *shape, self.width)

    def prefill(self, inputs_embeds: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read right-padded prompts `[G, L, H]`.

        Returns the last real hidden states `[G, H]`, the latents `[layers, G, L, K]` and the experts that the last
        real token was routed to `[G, M, k]`.
        """
        count, length = inputs_embeds.shape[:2]
        last = (torch.arange(count, device=lengths.device), lengths - 1)
        mask = (torch.arange(length, device=lengths.device) < lengths[:, None]).long()
        cache = DynamicCache()
        with self._routes() as routes:
            output = self.model(inputs_embeds=inputs_embeds, attention_mask=mask, past_key_values=cache, use_cache=True)
        experts = [r.view(count, length, -1)[last] for r in routes]
        return output.last_hidden_state[last], _latents_of(cache), _stack(experts, count)

    def extend(self, prompt: Tensor, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """Latents `[layers, R, C, K]` of right-padded tokens `[R, C]` after one prompt's latents `[layers, L, K]`."""
        rows, written = token_ids.shape
        known = prompt.shape[1]
        cache = DynamicCache()
        for index, kv in enumerate(prompt):
            kv = kv.expand(rows, 1, known, self.width)
            cache.update(kv[..., : self.rank], kv[..., self.rank :], index)
        places = torch.arange(known + written, device=lengths.device)
        mask = (places < known + lengths[:, None]).long()
        self.model(
            input_ids=cast(Any, token_ids),
            attention_mask=mask,
            position_ids=cast(Any, places[known:].expand(rows, written)),
            past_key_values=cache,
            use_cache=True,
        )
        return _latents_of(cache)[:, :, known:]

    def step(self, token_ids: Tensor, positions: Tensor, plan: StepPlan) -> tuple[Tensor, Tensor]:
        """Feed `[R]` tokens at `[R]` positions; return the hidden states `[R, H]` that predict the next.

        The second result is the experts that each token was routed to, `[R, M, k]`.
        """
        hidden = self.model.embed_tokens(token_ids)
        rotary = self.model.rotary_emb(hidden, positions[:, None])
        experts = []
        for index, layer in enumerate(self.layers):
            hidden = hidden + self._attend(layer.self_attn, layer.input_layernorm(hidden), rotary, plan, index)
            x = layer.post_attention_layernorm(hidden)
            if isinstance(layer.mlp, DeepseekV3MoE):
                _, weights, chosen = layer.mlp.gate(x)
                experts.append(chosen)
                hidden = hidden + (layer.mlp.experts(x, chosen, weights) + layer.mlp.shared_experts(x))
            else:
                hidden = hidden + layer.mlp(x)
        return self.model.norm(hidden), _stack(experts, len(hidden))

    def _attend(
        self, attn: DeepseekV3Attention, x: Tensor, rotary: tuple[Tensor, Tensor], plan: StepPlan, index: int
    ) -> Tensor:
        """Attention output `[R, H]` of one layer; stores the new tokens' latents."""
        rows, heads = len(x), attn.num_heads
        low_rank: Any = (attn.q_a_proj, attn.q_a_layernorm, attn.q_b_proj)
        query = x
        for part in low_rank if attn.q_proj is None else (attn.q_proj,):
            query = part(query)
        q_nope, q_rot = query.view(rows, heads, -1).split([attn.qk_nope_head_dim, attn.qk_rope_head_dim], dim=-1)
        latent, k_rot = attn.kv_a_proj_with_mqa(x).split([self.rank, attn.qk_rope_head_dim], dim=-1)
        q_rot, k_rot = self.rotate(q_rot[:, :, None], k_rot[:, None, None], *rotary)
        plan.write(index, torch.cat((attn.kv_a_layernorm(latent), k_rot[:, 0, 0]), -1))
        up = cast(nn.Linear, attn.kv_b_proj).weight.view(heads, -1, self.rank)
        up_key, up_value = up.split([attn.qk_nope_head_dim, attn.v_head_dim], dim=1)
        q_latent = torch.bmm(q_nope.transpose(0, 1), up_key).transpose(0, 1)  # W_UK absorbed into the query
        query = torch.cat((q_latent, q_rot.squeeze(2)), -1) * attn.scaling
        mixed = plan.attend(index, query, self.rank)
        values = torch.bmm(mixed.transpose(0, 1), up_value.transpose(1, 2)).transpose(0, 1)  # W_UV absorbed
        return attn.o_proj(values.reshape(rows, -1))

    @contextmanager
    def _routes(self) -> Iterator[list[Tensor]]:
        """Collects what each router chooses, `[tokens, k]`, in the order of the layers."""
        routes: list[Tensor] = []
        gates = [layer.mlp.gate for layer in self.layers if isinstance(layer.mlp, DeepseekV3MoE)]
        hooks = [
            gate.register_forward_hook(lambda _module, _inputs, output: routes.append(output[2])) for gate in gates
        ]
        try:
            yield routes
        finally:
            for hook in hooks:
                hook.remove()


def _latents_of(cache: DynamicCache) -> Tensor:
    layers = cast(list[DynamicLayer], cache.layers)
    return torch.stack([torch.cat((cast(Tensor, c.keys), cast(Tensor, c.values)), -1).squeeze(1) for c in layers])


def _stack(experts: list[Tensor], count: int) -> Tensor:
    """`[count, M, k]` from M times `[count, k]`."""
    return torch.stack(experts, 1) if experts else torch.empty(count, 0, 0, dtype=torch.long)
