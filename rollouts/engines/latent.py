"""Decoding over MLA latents: the prompt's keys and values are computed once and shared by all samples of a group.

Attention runs in the compressed space (DeepSeek-V2 §2.1.2, "absorbed" projections): a cached token is one latent of
kv_lora_rank + qk_rope_head_dim numbers for all heads, and nothing is expanded per step.
Shapes: G groups, n samples in each, R = G * n rows, L prompt tokens, T new tokens, H hidden, K latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3DecoderLayer,
    DeepseekV3Model,
    apply_rotary_pos_emb_interleave,
)


@dataclass(slots=True)
class DecodeState:
    """What a running batch keeps; rows are group-major."""

    prompt_kv: list[torch.Tensor]  # of each layer, [G, L, K]
    own_kv: list[torch.Tensor]  # of each layer, [G, n, T, K]; filled up to `step`
    lengths: torch.Tensor  # [G] prompt tokens
    step: int = 0

    @property
    def slots(self) -> tuple[int, int]:
        """(G, n)."""
        groups, samples = self.own_kv[0].shape[:2]
        return groups, samples

    def select(self, groups: torch.Tensor, slots: torch.Tensor) -> None:
        """Keep the groups `[G']` and, in each, the sample slots `[G', n']`; the rest is forgotten."""
        self.prompt_kv = [kv[groups] for kv in self.prompt_kv]
        self.own_kv = [kv[groups[:, None], slots] for kv in self.own_kv]
        self.lengths = self.lengths[groups]


class LatentDecoder:
    """Prefill and decode steps of Kimi-VL's language model. It reads the module's weights and owns none."""

    def __init__(self, text_model: DeepseekV3Model) -> None:
        self.model = text_model
        self.rank = text_model.config.kv_lora_rank

    def prefill(
        self, inputs_embeds: torch.Tensor, lengths: torch.Tensor, *, samples: int, max_new_tokens: int
    ) -> tuple[torch.Tensor, DecodeState]:
        """Run right-padded prompts `[G, L, H]`; return the last real hidden states `[G, H]` and the state."""
        count, length = inputs_embeds.shape[:2]
        mask = (torch.arange(length, device=lengths.device) < lengths[:, None]).long()
        cache = DynamicCache()
        output = self.model(inputs_embeds=inputs_embeds, attention_mask=mask, past_key_values=cache, use_cache=True)
        hidden = output.last_hidden_state[torch.arange(count, device=lengths.device), lengths - 1]
        layers = cast(list[DynamicLayer], cache.layers)
        prompt_kv = [torch.cat((cast(Tensor, c.keys), cast(Tensor, c.values)), -1).squeeze(1) for c in layers]
        own = [kv.new_empty(count, samples, max_new_tokens, kv.shape[-1]) for kv in prompt_kv]
        return hidden, DecodeState(prompt_kv=prompt_kv, own_kv=own, lengths=lengths)

    def step(self, token_ids: torch.Tensor, state: DecodeState) -> torch.Tensor:
        """Feed one token to each row, `[R]`, and return the hidden states `[R, H]` that predict the next."""
        _, samples = state.slots
        hidden = self.model.embed_tokens(token_ids)
        positions = (state.lengths + state.step).repeat_interleave(samples)[:, None]
        rotary = self.model.rotary_emb(hidden, positions)
        pad = torch.arange(state.prompt_kv[0].shape[1], device=state.lengths.device) >= state.lengths[:, None]
        pad = pad.repeat_interleave(samples, 0)[:, None]  # [R, 1, L], True where there is no prompt token
        for index, layer in enumerate(cast(list[DeepseekV3DecoderLayer], self.model.layers)):
            attended = self._attend(layer.self_attn, layer.input_layernorm(hidden), rotary, pad, state, index)
            hidden = hidden + attended
            hidden = hidden + _feed_forward(layer.mlp, layer.post_attention_layernorm(hidden))
        state.step += 1
        return self.model.norm(hidden)

    def _attend(
        self,
        attn: DeepseekV3Attention,
        x: torch.Tensor,
        rotary: tuple[torch.Tensor, torch.Tensor],
        pad: torch.Tensor,
        state: DecodeState,
        index: int,
    ) -> torch.Tensor:
        """Attention output `[R, H]` of one layer; writes the new token's latent at `state.step`."""
        groups, samples = state.slots
        rows, heads = len(x), attn.num_heads
        query = cast(nn.Linear, attn.q_proj)(x).view(rows, heads, attn.qk_head_dim)
        q_nope, q_rot = query.split([attn.qk_nope_head_dim, attn.qk_rope_head_dim], dim=-1)
        latent, k_rot = attn.kv_a_proj_with_mqa(x).split([self.rank, attn.qk_rope_head_dim], dim=-1)
        q_rot, k_rot = apply_rotary_pos_emb_interleave(q_rot[:, :, None], k_rot[:, None, None], *rotary)
        up = attn.kv_b_proj.weight.view(heads, -1, self.rank)
        up_key, up_value = up.split([attn.qk_nope_head_dim, attn.v_head_dim], dim=1)
        q_latent = torch.bmm(q_nope.transpose(0, 1), up_key).transpose(0, 1)  # W_UK absorbed into the query
        query = torch.cat((q_latent, q_rot.squeeze(2)), -1)  # [R, heads, K]

        own = state.own_kv[index]
        own[:, :, state.step] = torch.cat((attn.kv_a_layernorm(latent), k_rot[:, 0, 0]), -1).view(groups, samples, -1)
        own = own[:, :, : state.step + 1].reshape(rows, state.step + 1, -1)
        prompt = state.prompt_kv[index]
        length = prompt.shape[1]
        on_prompt = torch.bmm(query.reshape(groups, samples * heads, -1), prompt.transpose(1, 2))
        scores = torch.cat((on_prompt.view(rows, heads, length), torch.bmm(query, own.transpose(1, 2))), -1)
        scores = scores * attn.scaling
        scores[..., :length].masked_fill_(pad, -torch.inf)
        weights = scores.softmax(-1, dtype=torch.float32).to(x.dtype)
        shared = weights[..., :length].reshape(groups, samples * heads, length)
        mixed = torch.bmm(shared, prompt[..., : self.rank]).view(rows, heads, self.rank)
        mixed = mixed + torch.bmm(weights[..., length:], own[..., : self.rank])
        values = torch.bmm(mixed.transpose(0, 1), up_value.transpose(1, 2)).transpose(0, 1)  # W_UV absorbed
        return attn.o_proj(values.reshape(rows, -1))


def _feed_forward(mlp: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The layer's dense or mixture-of-experts block on rows `[R, H]`."""
    return mlp(x[None]).squeeze(0)
