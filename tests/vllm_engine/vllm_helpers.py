"""A small checkpoint for vLLM's CPU kernels, prompts for it, and a pool of one engine without Ray."""

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from configs.algorithms import LossConfig
from configs.optimizer import OptimizerConfig
from kimi_vl import TinySizes, create_tiny_checkpoint, load_model, load_processor, save_with_code
from rewards.types import Task
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.types import PromptCompletion
from rollouts.engines.driver import EngineDriver
from rollouts.engines.transformers import TransformersEngine
from rollouts.patches import Patches
from rollouts.types import Prompt, Request

SIZES = TinySizes(
    hidden_size=128,
    moe_intermediate_size=64,
    intermediate_size=160,
    num_attention_heads=4,
    n_routed_experts=6,
    kv_lora_rank=512,
    qk_nope_head_dim=32,
    qk_rope_head_dim=64,
    v_head_dim=48,
    vision_intermediate_size=96,
    num_merges=64,
)


def build_checkpoint(folder):
    """Weights in which no norm is one and no bias zero, exported with code."""
    made = build_plain(folder.with_name("made"), SIZES)
    return save_with_code(load_model(made), load_processor(made), folder)


def build_plain(made, sizes):
    """The same weights without code."""
    create_tiny_checkpoint(made, corpus=["What is 1 + 2? ◁think▷1 + 2 = 3◁/think▷3"] * 20, sizes=sizes)
    generator = torch.Generator().manual_seed(1)
    tensors = load_file(made / "model.safetensors")
    for name, tensor in tensors.items():
        noise = torch.randn(tensor.shape, generator=generator)
        if "e_score_correction_bias" in name:
            tensors[name] = 0.5 * noise
        elif tensor.ndim == 1:
            tensors[name] = tensor + 0.3 * noise
    save_file(tensors, made / "model.safetensors", metadata={"format": "pt"})
    return made


def build_prompt(rng, config, *, grids=(), text=14, name="made"):
    """Random words with the images in the middle."""
    words = rng.integers(0, config.text_config.bos_token_id, text)
    images = [np.array([config.media_placeholder_token_id] * (h * w // 4)) for h, w in grids]
    return Prompt(
        id=f"{name}/{len(grids)}",
        task=Task(id=f"{name}/{len(grids)}", source="made", question="?", answer="1"),
        input_ids=np.concatenate([words[: text // 2], *images, words[text // 2 :]]).astype(np.int64),
        patches=Patches(rng.uniform(-1, 1, (sum(h * w for h, w in grids), 3, 14, 14)).astype(np.float32)),
        image_grid_hws=np.array(grids, dtype=np.int64).reshape(-1, 2),
    )


def requests_for(prompts, n=3, seed=100, **options):
    return [Request(prompt=p, n=n, seed=seed + i, **options) for i, p in enumerate(prompts)]


def embedded(model, ids):
    """Our own engine with the same stop and barred ids."""
    stop, barred = ids
    return EngineDriver(TransformersEngine(model, stop_ids=stop, barred_ids=barred))


def move(model, by=0.1, seed=3):
    """Change every parameter, as an update would, and more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator))
    return model


def flat(results):
    return [completion for group in results for completion in group]


def tokens_of(results):
    return [completion.token_ids.tolist() for completion in flat(results)]


def gaps(ours, theirs):
    """Largest distance of the policy and of the sampler log-probs; the tokens must be the same."""
    assert tokens_of(ours) == tokens_of(theirs)
    pairs = list(zip(flat(ours), flat(theirs), strict=True))
    return tuple(
        max(float(np.abs(getattr(a, name) - getattr(b, name)).max()) for a, b in pairs)
        for name in ("policy_logprobs", "sampler_logprobs")
    )


def learner_logprobs(model, prompts, results, barred, temperature, *, replay=False):
    """The learner's log-probs of all completions, one after the other; `replay` takes the engine's experts."""
    config = LearnerConfig(
        loss=LossConfig(), optimizer=OptimizerConfig(), temperature=temperature, total_steps=1, max_new_tokens=50
    )
    pairs = [(p, c) for p, group in zip(prompts, results, strict=True) for c in group]
    return Learner(model, config, barred_ids=barred).logprobs(
        [
            PromptCompletion(id=str(i), prompt=p, token_ids=c.token_ids, experts=c.routed_experts if replay else None)
            for i, (p, c) in enumerate(pairs)
        ]
    )
