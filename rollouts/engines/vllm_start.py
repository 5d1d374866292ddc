"""Starts a vLLM in this process, set up so that its answers are those that the learner can learn from."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rollouts.engines.engine_options import SAMPLER
from rollouts.engines.protocol import EngineError

_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process a worker: what is killed is gone, and steps are ours to time
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # two workers of one machine would be bound to the same cores
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
}


GPU_MEMORY = 0.85  # of a worker's share: weights and cache together; the rest is for the weight sync
_CPU_CACHE = 256 << 20  # bytes of the cache on a CPU; more where two samples of full length need more
_BATCH_TOKENS = 8192  # of one pass over prompts; no image of a prompt may have more


_EXACT = {"VLLM_USE_V2_MODEL_RUNNER": "0"}  # it takes logits processors of another kind


@dataclass(frozen=True, slots=True, kw_only=True)
class VllmSettings:
    """With what one vLLM is started."""

    context: int | None = None  # tokens of prompt and answer; None, or what is above the model's own: the model's own
    gpu_share: float = 1.0  # of a GPU that is this engine's
    sleeps: bool = False  # it can give all of that back for a while
    record_experts: bool = False  # completions say which experts each token went to; only with vLLM's own sampler
    options: Mapping[str, Any] = field(default_factory=dict)  # `rl.engine_options`, checked by `check_options`


def start_vllm(model_path: str, *, dtype: str, barred_ids: Sequence[int], settings: VllmSettings) -> Any:
    """A vLLM `LLMEngine` with the checkpoint's weights. Takes about half a minute, most of it imports."""
    folder = Path(model_path)
    if (folder / "tokenizer.json").exists() or not folder.is_dir():
        return _start(model_path, model_path, dtype=dtype, barred_ids=barred_ids, settings=settings)
    with tempfile.TemporaryDirectory(prefix="thinkvl-model-") as made:
        _link_without_code(folder, Path(made))
        return _start(made, model_path, dtype=dtype, barred_ids=barred_ids, settings=settings)


def _link_without_code(folder: Path, target: Path) -> None:
    """A hub folder as our exports are: its weights, and config and processor as we write them.

    vLLM reads a processor and a tokenizer even where prompts come as tokens; the hub's would be code to run.
    """
    from rollouts.model_family import family_at

    for file in folder.glob("*.safetensors*"):
        (target / file.name).symlink_to(file.resolve())
    family = family_at(str(folder))
    family.load_config(str(folder)).save_pretrained(target)
    family.load_processor(str(folder)).save_pretrained(target)
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json", "processor_config.json"):
        if (path := target / name).exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            content.pop("auto_map", None)
            path.write_text(json.dumps(content), encoding="utf-8")


def _start(folder: str, model_path: str, *, dtype: str, barred_ids: Sequence[int], settings: VllmSettings) -> Any:
    """Start with the files of `folder`, which are those of `model_path` in a form that vLLM reads."""
    native = settings.options.get(SAMPLER) == "native"
    for name, value in (_SETTINGS if native else _SETTINGS | _EXACT).items():
        os.environ.setdefault(name, value)
    # Imported here: the settings above are read on import.
    from vllm.engine.arg_utils import EngineArgs  # pyright: ignore[reportMissingImports]
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]
    from vllm.v1.engine.llm_engine import LLMEngine  # pyright: ignore[reportMissingImports]

    if settings.record_experts and current_platform.is_cpu():
        raise EngineError(
            "rl.router_replay = true: vLLM returns experts from its second model runner alone, which needs Triton, and "
            "its CPU build has none. Use rl.engine: transformers, or a GPU"
        )
    from rollouts.engines import vllm_native, vllm_sampling, vllm_weights
    from rollouts.model_family import family_at

    text = family_at(model_path).load_config(model_path).text_config
    context = min(settings.context or text.max_position_embeddings, text.max_position_embeddings)
    options = {name: value for name, value in settings.options.items() if name != SAMPLER}
    arguments = EngineArgs(
        model=folder,
        dtype=dtype,
        seed=0,
        max_model_len=context,
        weight_transfer_config={"backend": vllm_weights.BACKEND},
        worker_extension_cls=f"{vllm_weights.__name__}.{vllm_weights.WorkerExtension.__name__}",
        enable_sleep_mode=settings.sleeps and not current_platform.is_cpu(),
        enable_return_routed_experts=settings.record_experts,
        mm_processor_cache_gb=0,  # images come processed
        **(vllm_native.native_arguments() if native else vllm_sampling.exact_arguments(barred_ids)),
        **_defaults(text, dtype, context, settings.gpu_share) | options,
    )
    keep = torch.set_num_threads  # vLLM replaces it on a CPU, for everybody in the process
    try:
        engine = LLMEngine.from_engine_args(arguments)
    finally:
        torch.set_num_threads = keep
    engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": {}})
    return engine


def _defaults(text: Any, dtype: str, context: int, gpu_share: float) -> dict[str, Any]:
    """The arguments that a recipe may override."""
    from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

    from rollouts.engines import vllm_cpu

    both = {
        "max_num_seqs": 256,
        "max_num_batched_tokens": _BATCH_TOKENS,
        "skip_mm_profiling": True,  # it would need an image of the largest size
        "disable_log_stats": True,
    }
    if not current_platform.is_cpu():
        memory = GPU_MEMORY * gpu_share
        return both | {"gpu_memory_utilization": memory, "enable_prefix_caching": True}
    token = text.num_hidden_layers * (text.kv_lora_rank + text.qk_rope_head_dim) * getattr(torch, dtype).itemsize
    return both | {
        "kv_cache_memory_bytes": max(_CPU_CACHE, 2 * context * token),
        "max_num_batched_tokens": max(context, _BATCH_TOKENS),  # prompts are read in one piece there
        "enable_prefix_caching": False,  # not with latent attention there
        "enforce_eager": True,
        "attention_backend": vllm_cpu.ATTENTION,
        "compilation_config": vllm_cpu.compilation_config(),
    }
