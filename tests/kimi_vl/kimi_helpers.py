"""Sizes, text and images that several tests of Kimi-VL share."""

import random

import numpy as np
from PIL import Image

from kimi_vl import TinySizes

SMALL = TinySizes(
    hidden_size=64,
    moe_intermediate_size=32,
    intermediate_size=96,
    num_attention_heads=3,
    n_routed_experts=6,
    n_shared_experts=2,
    kv_lora_rank=20,
    qk_nope_head_dim=12,
    v_head_dim=10,
    vision_hidden_size=48,
    vision_num_attention_heads=3,
    vision_intermediate_size=40,
    init_pos_emb=8,
    num_merges=120,
    in_token_limit=400,
)
"""Sizes that differ from each other wherever two could be mixed up."""


def sums(count=300, seed=0):
    rng = random.Random(seed)
    for _ in range(count):
        a, b = rng.randrange(100), rng.randrange(100)
        yield f"What is {a} + {b}? ◁think▷Read {a} and {b}; {a} + {b} = {a + b}.◁/think▷The answer is {a + b}."


def picture(width, height, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))
