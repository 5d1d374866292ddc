"""Kimi-VL restated in plain torch from the papers, on hub tensors, one image and one sequence at a time.

Shares no code with transformers or the package: complex numbers for both rotary embeddings, explicit softmax, a loop
over tokens for the experts, `F.interpolate` for the position table.
"""

import math

import torch
from torch.nn import functional


def layer_norm(x, weights, name, eps=1e-5):
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.pow(2).mean(-1, keepdim=True)
    return centred / (variance + eps).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def rms_norm(x, weight, eps):
    return x / (x.pow(2).mean(-1, keepdim=True) + eps).sqrt() * weight


def linear(x, weights, name):
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def rotate_pairs(x, angles):
    """Turn the pairs (2i, 2i + 1) of the last axis by `angles`."""
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).flatten(-2)


def vision_angles(h, w, head_dim):
    frequencies = 10000.0 ** (-torch.arange(0, head_dim, 4, dtype=torch.float32) / head_dim)
    angles = torch.zeros(h * w, head_dim // 2)
    for row in range(h):
        for column in range(w):
            angles[row * w + column, 0::2] = column * frequencies
            angles[row * w + column, 1::2] = row * frequencies
    return angles


def vision_block(x, weights, name, angles, heads):
    head_dim = x.shape[-1] // heads
    packed = linear(layer_norm(x, weights, f"{name}.norm0"), weights, f"{name}.wqkv")
    q, k, v = packed.view(len(x), 3, heads, head_dim).permute(1, 2, 0, 3)
    q, k = rotate_pairs(q, angles), rotate_pairs(k, angles)
    mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(head_dim), dim=-1) @ v
    x = x + linear(mixed.transpose(0, 1).flatten(1), weights, f"{name}.wo")
    inner = linear(layer_norm(x, weights, f"{name}.norm1"), weights, f"{name}.mlp.fc0")
    return x + linear(functional.gelu(inner, approximate="tanh"), weights, f"{name}.mlp.fc1")


def image_features(pixels, h, w, weights, vision):
    """(h * w, 3, 14, 14) -> (h * w / 4, text width)."""
    kernel = weights["vision_tower.patch_embed.proj.weight"]
    x = pixels.flatten(1) @ kernel.flatten(1).T + weights["vision_tower.patch_embed.proj.bias"]
    table = weights["vision_tower.patch_embed.pos_emb.weight"]
    if table.shape[:2] != (h, w):
        table = functional.interpolate(table.permute(2, 0, 1)[None], size=(h, w), mode="bicubic")[0].permute(1, 2, 0)
    x = x + table.reshape(h * w, -1)
    heads = vision["num_attention_heads"]
    angles = vision_angles(h, w, vision["hidden_size"] // heads)
    for index in range(vision["num_hidden_layers"]):
        x = vision_block(x, weights, f"vision_tower.encoder.blocks.{index}", angles, heads)
    x = layer_norm(x, weights, "vision_tower.encoder.final_layernorm")
    x = layer_norm(x, weights, "multi_modal_projector.pre_norm").view(h, w, -1)
    merged = [
        torch.cat([x[row, column], x[row, column + 1], x[row + 1, column], x[row + 1, column + 1]])
        for row in range(0, h, 2)
        for column in range(0, w, 2)
    ]
    inner = functional.gelu(linear(torch.stack(merged), weights, "multi_modal_projector.linear_1"))
    return linear(inner, weights, "multi_modal_projector.linear_2")


def latent_attention(x, weights, name, text):
    length, heads = len(x), text["num_attention_heads"]
    nope, rope, value, rank = (text[k] for k in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank"))
    theta = text["rope_theta"] ** (-torch.arange(0, rope, 2, dtype=torch.float32) / rope)
    angles = torch.arange(length, dtype=torch.float32)[:, None] * theta
    q = linear(x, weights, f"{name}.q_proj").view(length, heads, nope + rope).transpose(0, 1)
    q = torch.cat([q[..., :nope], rotate_pairs(q[..., nope:], angles)], dim=-1)
    down = linear(x, weights, f"{name}.kv_a_proj_with_mqa")
    latent = rms_norm(down[:, :rank], weights[f"{name}.kv_a_layernorm.weight"], 1e-6)
    up = linear(latent, weights, f"{name}.kv_b_proj").view(length, heads, nope + value).transpose(0, 1)
    shared = rotate_pairs(down[:, rank:], angles).expand(heads, length, rope)
    k, v = torch.cat([up[..., :nope], shared], dim=-1), up[..., nope:]
    scores = q @ k.transpose(-1, -2) / math.sqrt(nope + rope)
    scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf)
    return linear((torch.softmax(scores, dim=-1) @ v).transpose(0, 1).flatten(1), weights, f"{name}.o_proj")


def gated(x, weights, name):
    inner = functional.silu(linear(x, weights, f"{name}.gate_proj")) * linear(x, weights, f"{name}.up_proj")
    return linear(inner, weights, f"{name}.down_proj")


def experts(x, weights, name, text):
    scores = torch.sigmoid(x @ weights[f"{name}.gate.weight"].T)
    outputs = []
    for token, score in zip(x, scores, strict=True):
        ranked = (score + weights[f"{name}.gate.e_score_correction_bias"]).argsort(descending=True)
        chosen = ranked[: text["num_experts_per_tok"]].tolist()
        total = sum(score[e] for e in chosen) + 1e-20
        mixed = sum(score[e] / total * gated(token, weights, f"{name}.experts.{e}") for e in chosen)
        outputs.append(text["routed_scaling_factor"] * mixed)
    return torch.stack(outputs) + gated(x, weights, f"{name}.shared_experts")


def logits(embeddings, weights, text):
    """(L, width) -> (L, vocabulary)."""
    x = embeddings
    for index in range(text["num_hidden_layers"]):
        name = f"language_model.model.layers.{index}"
        normed = rms_norm(x, weights[f"{name}.input_layernorm.weight"], text["rms_norm_eps"])
        x = x + latent_attention(normed, weights, f"{name}.self_attn", text)
        normed = rms_norm(x, weights[f"{name}.post_attention_layernorm.weight"], text["rms_norm_eps"])
        dense = index < text["first_k_dense_replace"]
        x = x + (gated(normed, weights, f"{name}.mlp") if dense else experts(normed, weights, f"{name}.mlp", text))
    x = rms_norm(x, weights["language_model.model.norm.weight"], text["rms_norm_eps"])
    return x @ weights["language_model.lm_head.weight"].T


def kimi_vl(input_ids, pixels, grids, weights, config):
    """One sequence: (L,) ids, (P, 3, 14, 14) pixels, [(h, w)] grids -> (L, vocabulary)."""
    x = weights["language_model.model.embed_tokens.weight"][input_ids].clone()
    features, start = [], 0
    for h, w in grids:
        features.append(image_features(pixels[start : start + h * w], h, w, weights, config["vision_config"]))
        start += h * w
    x[input_ids == config["media_placeholder_token_id"]] = torch.cat(features)
    return logits(x, weights, config["text_config"])
