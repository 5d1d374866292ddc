"""Starts a vLLM in this process, set up so that its answers are those that the learner can learn from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process a worker: what is killed is gone, and steps are ours to time
    "VLLM_USE_V2_MODEL_RUNNER": "0",  # it takes logits processors of another kind
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two workers of one machine would be bound to the same cores
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmLimits:
    """What one vLLM may hold."""

    rows: int = 256  # samples that decode together
    context: int | None = None  # tokens of prompt and answer; None, or what is above the model's own: the model's own
    gpu_share: float = 0.85  # of the GPU's memory, weights and cache together
    sleeps: bool = False  # it can give all of that back for a while
    cpu_cache_bytes: int = 256 << 20  # for the cache on a CPU; more where one sample of `context` tokens needs more


def start_vllm(model_path: str, *, dtype: str, barred_ids: Sequence[int], limits: VllmLimits) -> Any:
    """A vLLM `LLMEngine` with the checkpoint's weights. Takes about half a minute, most of it imports."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    # Imported here: the settings above are read on import.
    from vllm.engine.arg_utils import EngineArgs  # pyright: ignore[reportMissingImports]
    from vllm.v1.engine.llm_engine import LLMEngine  # pyright: ignore[reportMissingImports]

    from rollouts.engines import vllm_sampling, vllm_weights
    from rollouts.model_family import family_at

    text = family_at(model_path).load_config(model_path).text_config
    context = min(limits.context or text.max_position_embeddings, text.max_position_embeddings)
    vllm_weights.register()
    arguments = EngineArgs(
        model=model_path,
        dtype=dtype,
        seed=0,
        max_model_len=context,
        max_num_seqs=limits.rows,
        logprobs_mode=vllm_sampling.LOGPROBS_MODE,
        logits_processors=[vllm_sampling.SamplingProcessor],
        additional_config={vllm_sampling.KEY: {"barred": list(barred_ids)}},
        weight_transfer_config={"backend": vllm_weights.BACKEND},
        async_scheduling=False,  # a step that runs ahead would be of unknown version
        skip_mm_profiling=True,  # it would need an image of the largest size
        mm_processor_cache_gb=0,  # images come processed
        disable_log_stats=True,
        **_memory(text, dtype, context, limits),
    )
    keep = torch.set_num_threads  # vLLM replaces it on a CPU, for everybody in the process
    try:
        engine = LLMEngine.from_engine_args(arguments)
    finally:
        torch.set_num_threads = keep
    engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
    return engine


def _memory(text: Any, dtype: str, context: int, limits: VllmLimits) -> dict[str, Any]:
    """The arguments that differ between CPU and GPU."""
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

    from rollouts.engines import vllm_cpu

    if not current_platform.is_cpu():
        return {
            "gpu_memory_utilization": limits.gpu_share,
            "enable_prefix_caching": True,
            "enable_sleep_mode": limits.sleeps,
        }
    token = text.num_hidden_layers * (text.kv_lora_rank + text.qk_rope_head_dim) * getattr(torch, dtype).itemsize
    return {
        "kv_cache_memory_bytes": max(limits.cpu_cache_bytes, 2 * context * token),
        "max_num_batched_tokens": max(context, 8192),  # prompts are read in one piece there
        "enable_prefix_caching": False,  # not with latent attention there
        "enforce_eager": True,
        "attention_backend": vllm_cpu.ATTENTION,
        "compilation_config": vllm_cpu.compilation_config(),
    }
