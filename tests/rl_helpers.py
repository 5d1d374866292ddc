"""A tiny model without a folder, and samples and rollouts that were made up."""

import itertools

import numpy as np
import torch

from configs.algorithms import LossConfig
from configs.optimizer import OptimizerConfig
from kimi_vl import TinySizes
from kimi_vl.tiny import build_tiny_model, tiny_config
from rewards.types import Score, Task, Verdict, VerdictKind
from rl.learner.learner import Learner
from rl.learner.learner_config import LearnerConfig
from rl.types import Sample
from rollouts.patches import Patches
from rollouts.types import Completion, Prompt, Rollout, ScoredRollout, Segment

SIZES = TinySizes(
    hidden_size=32,
    moe_intermediate_size=24,
    intermediate_size=40,
    num_attention_heads=2,
    num_hidden_layers=2,
    n_routed_experts=4,
    kv_lora_rank=16,
    qk_nope_head_dim=12,
    v_head_dim=10,
    vision_hidden_size=32,
    vision_num_attention_heads=2,
    vision_num_hidden_layers=1,
    vision_intermediate_size=40,
    init_pos_emb=4,
)
_numbers = itertools.count()  # for ids
TOKENS = 40  # ordinary tokens; what lies above is reserved


def new_id():
    """Of a prompt or a sample: no two are alike."""
    return str(next(_numbers))


def build_model(*, seed=0, dtype=torch.float32):
    """All weights random, norms and router bias too."""
    model = build_tiny_model(tiny_config(SIZES, num_tokens=TOKENS), seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.ndim == 1:
                tensor.add_(torch.randn(tensor.shape, generator=generator) * (0.5 if "score" in name else 0.3))
    return model.to(dtype)


def barred_ids(model):
    return list(range(TOKENS, model.config.text_config.vocab_size))


def make_prompt(rng, model, *, text=4, grids=(), source="made"):
    words = rng.integers(0, TOKENS, text)
    images = [[model.config.media_placeholder_token_id] * (h * w // 4) for h, w in grids]
    return Prompt(
        id=new_id(),
        task=Task(id=f"{source}/{text}", source=source, question="?", answer="1"),
        input_ids=np.concatenate([words[:1], *images, words[1:]]).astype(np.int64),
        patches=Patches(rng.uniform(-1, 1, (sum(h * w for h, w in grids), 3, 14, 14)).astype(np.float32)),
        image_grid_hws=np.array(grids, dtype=np.int64).reshape(-1, 2),
    )


def make_samples(rng, model, *, per_prompt=3):
    """Four prompts of unlike length, one of text only and one with two images; old log-probs are near, not exact."""
    shapes = [(4, ((2, 2),)), (7, ()), (3, ((2, 4), (4, 2))), (11, ((4, 4),))]
    samples = []
    for text, grids in shapes:
        prompt = make_prompt(rng, model, text=text, grids=grids)
        for _ in range(per_prompt):
            length = int(rng.integers(1, 9))
            samples.append(
                Sample(
                    id=new_id(),
                    prompt=prompt,
                    token_ids=rng.integers(0, TOKENS, length),
                    old_logprobs=(-np.log(TOKENS) + 0.3 * rng.normal(size=length)).astype(np.float32),
                    advantage=float(rng.normal()),
                )
            )
    return samples


def make_learner(model, *, loss=None, optimizer=None, temperature=0.9, **options):
    config = LearnerConfig(
        loss=loss or LossConfig(algorithm="grpo"),
        optimizer=optimizer or OptimizerConfig(learning_rate=1e-3, grad_clip=1e9),
        temperature=temperature,
        **{"total_steps": 10, "max_new_tokens": 16, **options},
    )
    return Learner(model, config, barred_ids=barred_ids(model))


def make_scored(prompt, reward, *, kind=VerdictKind.CORRECT, length=3, text="1", finish="stop", parts=None):
    """A scored rollout of `length` tokens; `reward` None is a verifier's failure."""
    completion = Completion(
        token_ids=np.arange(length),
        policy_logprobs=np.full(length, -1.0, np.float32),
        sampler_logprobs=np.full(length, -0.5, np.float32),
        finish_reason=finish,
        segments=(Segment(start=0, stop=length, version=0),),
    )
    score = Score(verdict=Verdict(kind=kind, score=float(kind == "correct")), reward=reward, parts=parts or {})
    return ScoredRollout(
        rollout=Rollout(prompt=prompt, index=next(_numbers), completion=completion, text=text), score=score
    )
