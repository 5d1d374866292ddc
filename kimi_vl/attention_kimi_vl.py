"""The two attentions of Kimi-VL where transformers' general code is slow: decoding with the latent cache, small images.

Both compute what their parents compute, to rounding.

Source: DeepSeek-V2 (arXiv:2405.04434) section 2.1.2 and appendix C, for the latent cache and for absorbing
W^UK into the query and W^UV into the output.
"""

from itertools import groupby
from typing import Any

import torch
from torch.nn import functional
from transformers.cache_utils import Cache
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    apply_rotary_pos_emb,
    apply_rotary_pos_emb_interleave,
)
from transformers.models.kimi_k25.modeling_kimi_k25 import Kimi_K25VisionAttention, apply_rotary_pos_emb_vision


class LatentAttention(DeepseekV3Attention):
    """DeepSeek-V3 attention that decodes one token without expanding the cached latents into keys and values.

    The parent expands all `L` cached latents to every head at each step, B L r h (d_nope + d_v) multiplications; here
    the query goes down to the latents instead, and only the result comes up. `r` is `kv_lora_rank`.
    """

    def forward(
        self,
        hidden_states: torch.Tensor,
        position_embeddings: tuple[torch.Tensor, torch.Tensor],
        attention_mask: torch.Tensor | None,
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Any:
        """(B, L, H) to (B, L, H); attention weights are returned by the eager kernel only."""
        decodes = hidden_states.shape[1] == 1 and self.config._attn_implementation == "sdpa"
        if past_key_values is None or not decodes:
            return super().forward(hidden_states, position_embeddings, attention_mask, past_key_values, **kwargs)
        q_nope, q_rot, latents, k_rot = self._latents(hidden_states, position_embeddings)
        latents, k_rot = past_key_values.update(latents, k_rot, self.layer_idx)
        w_k, w_v = self.kv_b_proj.weight.view(self.num_heads, -1, self.kv_lora_rank).split(
            [self.qk_nope_head_dim, self.v_head_dim], dim=1
        )
        query = torch.cat((torch.einsum("bhqn,hnr->bhqr", q_nope, w_k), q_rot), dim=-1)
        # All heads share one key and one value: (B, h, 1, r + d) queries act as h queries of a single head.
        mixed = functional.scaled_dot_product_attention(
            query.transpose(1, 2),
            torch.cat((latents, k_rot), dim=-1),
            latents,
            attn_mask=attention_mask,
            scale=self.scaling,
        )
        output = torch.einsum("bqhr,hvr->bqhv", mixed, w_v)
        return self.o_proj(output.flatten(2)), None

    def _latents(
        self, hidden_states: torch.Tensor, position_embeddings: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (B, h, 1, nope) and (B, h, 1, rope), and the token's latent (B, 1, 1, r) and rotary key."""
        batch, query = hidden_states.shape[0], hidden_states
        low_rank: Any = (self.q_a_proj, self.q_a_layernorm, self.q_b_proj)
        for layer in low_rank if self.q_proj is None else (self.q_proj,):
            query = layer(query)
        query = query.view(batch, 1, self.num_heads, self.qk_head_dim).transpose(1, 2)
        q_nope, q_rot = query.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        latents, k_rot = self.kv_a_proj_with_mqa(hidden_states).split([self.kv_lora_rank, self.qk_rope_head_dim], -1)
        rotate = apply_rotary_pos_emb_interleave if self.config.rope_interleave else apply_rotary_pos_emb
        q_rot, k_rot = rotate(q_rot, k_rot.unsqueeze(1), *position_embeddings)
        return q_nope, q_rot, self.kv_a_layernorm(latents).unsqueeze(1), k_rot


class PackedVisionAttention(Kimi_K25VisionAttention):
    """MoonViT attention that takes neighbouring images of one size in one call; the parent calls once an image."""

    def forward(
        self,
        hidden_states: torch.Tensor,
        cu_seqlens: torch.Tensor,
        position_embeddings: Any = None,
        max_seqlen: int | None = None,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(P, width) to (P, width); `cu_seqlens` (N + 1,) are the borders between images."""
        if self.config._attn_implementation != "sdpa":
            return super().forward(hidden_states, cu_seqlens, position_embeddings, max_seqlen, **kwargs)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (proj(hidden_states).view(1, -1, self.num_heads, self.head_dim) for proj in projections)
        query, key = apply_rotary_pos_emb_vision(query, key, *position_embeddings)
        outputs, start = [], 0
        for length, images in groupby(cu_seqlens.diff().tolist()):
            count = sum(1 for _ in images)
            rows = slice(start, start + count * length)
            q, k, v = (
                part[0, rows].view(count, length, self.num_heads, self.head_dim).transpose(1, 2)
                for part in (query, key, value)
            )
            mixed = functional.scaled_dot_product_attention(q, k, v, scale=self.scaling)
            outputs.append(mixed.transpose(1, 2).reshape(count * length, self.dim))
            start = rows.stop
        return self.proj(torch.cat(outputs))
