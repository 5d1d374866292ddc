"""Tiny checkpoints, made-up prompts and engines for the tests of the rollouts."""

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from kimi_vl import TinySizes, create_tiny_checkpoint
from rewards.types import Task
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.patches import Patches
from rollouts.types import Prompt, Request

SIZES = TinySizes(
    hidden_size=48,
    moe_intermediate_size=32,
    intermediate_size=80,
    num_attention_heads=3,
    n_routed_experts=6,
    kv_lora_rank=20,
    qk_nope_head_dim=12,
    v_head_dim=10,
    vision_hidden_size=32,
    vision_num_attention_heads=2,
    vision_intermediate_size=40,
    init_pos_emb=8,
    num_merges=40,
)
"""Sizes that differ from each other wherever two could be mixed up."""


def build_tiny_folder(folder, *, seed=0):
    """A checkpoint in which no norm is one and no bias zero, so that no term of the model can be left out unseen."""
    create_tiny_checkpoint(folder, corpus=["What is 1 + 2? ◁think▷1 + 2 = 3◁/think▷3"] * 20, sizes=SIZES, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if "e_score_correction_bias" in name:
            tensors[name] = 0.5 * noise
        elif tensor.ndim == 1:
            tensors[name] = tensor + 0.3 * noise
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def build_prompt(rng, config, *, text, grids=()):
    """A prompt of `text` random tokens with an image placeholder run for each grid in the middle."""
    words = rng.integers(0, config.text_config.bos_token_id, text)
    images = [[config.media_placeholder_token_id] * (h * w // 4) for h, w in grids]
    ids = np.concatenate([words[: text // 2], *images, words[text // 2 :]]).astype(np.int64)
    patches = sum(h * w for h, w in grids)
    return Prompt(
        id=f"t{text}",
        task=Task(id=f"t{text}", source="made", question="?", answer="1"),
        input_ids=ids,
        patches=Patches(rng.uniform(-1, 1, (patches, 3, 14, 14)).astype(np.float32)),
        image_grid_hws=np.array(grids, dtype=np.int64).reshape(-1, 2),
    )


def engine_of(model, ids, *, stop_ids=None, **options):
    """An engine; without `stop_ids` the stop tokens are barred too, so that every answer runs to the limit."""
    stop, barred = ids
    barred = barred if stop_ids is not None else [*barred, *stop]
    stop = stop if stop_ids is None else stop_ids
    return EngineDriver(TransformersEngine(model, stop_ids=stop, barred_ids=barred, **options))


def requests_for(prompts, n=2, seed=100):
    """One request a prompt; `n` is one number or one for each."""
    counts = [n] * len(prompts) if isinstance(n, int) else n
    return [Request(prompt=p, n=c, seed=seed + i) for i, (p, c) in enumerate(zip(prompts, counts, strict=True))]


def tokens_of(results):
    return [[completion.token_ids.tolist() for completion in group] for group in results]
