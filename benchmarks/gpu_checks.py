"""Checks a device against the CPU at a small shape: relative gaps of log-probs, gradients and attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from kimi_vl import KimiVLForConditionalGeneration, TinySizes
from kimi_vl.tiny import build_tiny_model, tiny_config
from rewards.types import Task
from rl.learner.batch import collect_images, pack
from rl.learner.forward import encode, response_hidden
from rl.learner.logprobs import token_logprobs
from rl.learner.packed_attention import PackedLayout, PackedSegment, packed_attention, use_packed_attention
from rl.types import PromptCompletion
from rollouts.patches import Patches
from rollouts.types import Prompt

WORDS = 200
# The widths of a head are Kimi-VL-A3B's, so that a GPU takes the kernels that it takes there.
SIZES = TinySizes(
    hidden_size=128, num_attention_heads=2, kv_lora_rank=64, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
)
LIMITS = {  # relative gaps (2-norms) above these mean that a kernel is wrong, not that it rounds
    "logprobs float32": 1e-4,
    "gradient float32": 1e-3,
    "attention bfloat16": 2e-2,
    "attention gradient bfloat16": 2e-2,
}


def check(device: torch.device) -> dict[str, float]:
    """Relative gaps of `device` against the CPU in double precision, by name; see LIMITS."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    found = {}
    exact = _logprobs_and_gradient(torch.device("cpu"), torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        # In bfloat16 a router may choose another of two near-equal experts: this gap is shown and has no limit.
        values = _logprobs_and_gradient(device, dtype)
        for name, ours, theirs in zip(("logprobs", "gradient"), values, exact, strict=True):
            found[f"{name} {_name(dtype)}"] = _gap(ours, theirs)
    exact = _attention(torch.device("cpu"), torch.float64)
    for name, ours, theirs in zip(
        ("attention", "attention gradient"), _attention(device, torch.bfloat16), exact, strict=True
    ):
        found[f"{name} bfloat16"] = _gap(ours, theirs)
    torch.set_float32_matmul_precision(before)
    return found


def too_far(gaps: dict[str, float]) -> list[str]:
    """The gaps that exceed their limits, as text."""
    return [f"{name}: {gaps[name]:.2e}, at most {limit}" for name, limit in LIMITS.items() if not gaps[name] <= limit]


def _logprobs_and_gradient(device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and gradient of three completions of two prompts, one with an image, by the learner's forward pass."""
    config = tiny_config(SIZES, num_tokens=WORDS)
    model = build_tiny_model(config, seed=0).to(device, dtype)
    if dtype == torch.float64:
        model.set_experts_implementation("eager")  # the grouped product has no kernel for it
    use_packed_attention(model.model.language_model)
    answers = _answers(model)
    images = collect_images(answers, model.config)
    row = pack(answers, images)
    logprobs, _ = token_logprobs(
        response_hidden(model, row, encode(model, images)),
        model.lm_head.weight,
        row.targets.to(device),
        temperature=1.0,
        barred=torch.zeros(config.text_config.vocab_size, dtype=torch.bool, device=device),
    )
    logprobs.sum().backward()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return logprobs.detach(), torch.cat(gradients)


def _answers(model: KimiVLForConditionalGeneration) -> Sequence[PromptCompletion]:
    rng = np.random.default_rng(0)
    task = Task(id="made", source="made", question="?", answer="1")
    image = np.full(8, model.config.media_placeholder_token_id)
    prompts = [
        Prompt(
            id="image",
            task=task,
            input_ids=np.concatenate([rng.integers(0, WORDS, 5), image, rng.integers(0, WORDS, 9)]),
            patches=Patches(rng.uniform(-1, 1, (32, 3, 14, 14)).astype(np.float32)),
            image_grid_hws=np.array([[4, 8]]),
        ),
        text_prompt(rng.integers(0, WORDS, 20)),
    ]
    return [
        PromptCompletion(id=str(n), prompt=prompts[i], token_ids=rng.integers(0, WORDS, n))
        for i, n in ((0, 30), (0, 7), (1, 50))
    ]


def text_prompt(ids: np.ndarray) -> Prompt:
    """A prompt without an image."""
    return Prompt(
        id="text",
        task=Task(id="made", source="made", question="?", answer="1"),
        input_ids=ids,
        patches=Patches(np.zeros((0, 3, 14, 14), np.float32)),
        image_grid_hws=np.zeros((0, 2), np.int64),
    )


def _attention(device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Packed attention alone, without a router: output, and gradients of queries, keys and values."""
    segments = [
        PackedSegment(start=0, length=100),
        PackedSegment(start=100, length=300, prefix_start=0, prefix_length=100),
        PackedSegment(start=400, length=17, prefix_start=0, prefix_length=100),
        PackedSegment(start=417, length=200),
    ]
    generator = torch.Generator().manual_seed(0)
    q, k, v, weights = (
        torch.randn(1, 2, 617, width, dtype=torch.float64, generator=generator).to(device, dtype)
        for width in (192, 192, 128, 128)
    )
    inputs = [x.requires_grad_() for x in (q, k, v)]
    mixed, _ = packed_attention(
        torch.nn.Identity(), *inputs, None, layout=PackedLayout.of(segments, device), scaling=192**-0.5
    )
    (mixed.transpose(1, 2) * weights).sum().backward()
    return mixed.detach(), torch.cat([x.grad.flatten() for x in inputs if x.grad is not None])


def _gap(found: torch.Tensor, exact: torch.Tensor) -> float:
    """2-norm of the difference, relative to the norm of the exact result."""
    return float((found.cpu().double() - exact).norm() / exact.norm())


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
