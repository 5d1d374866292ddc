"""Which engine a worker runs, and whether it can run here; found out before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from configs.errors import UserError
from rollouts.engines.driver import EngineDriver
from rollouts.engines.protocol import Engine
from rollouts.engines.transformers import TransformersEngine
from rollouts.model_family import family_at

VLLM_CPU_LATENTS = {
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
}  # vLLM's decode kernel for CPUs knows no others
_CPU_EXPERTS = 32  # sizes of a layer with experts must be multiples of it


class EngineError(UserError, ValueError):
    """The chosen engine cannot run here, or not with this model; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """What an actor needs to build its engine: sent once, weights follow by `publish`."""

    model_path: str
    dtype: str
    stop_ids: tuple[int, ...]
    barred_ids: tuple[int, ...]
    threads: int = 1
    record_experts: bool = False  # completions then say which experts each token went to; not with vLLM
    engine: str = "transformers"  # a key of `ENGINES`
    context: int | None = None  # vLLM: the most tokens of a prompt and its answer; None: the model's own limit
    gpu_share: float = 1.0  # vLLM: of a GPU that is this worker's

    def build(self) -> EngineDriver:
        """Start the engine with the weights of the checkpoint."""
        torch.set_num_threads(self.threads)
        return EngineDriver(ENGINES[self.engine](self))


def check_engine(name: str) -> None:
    """Raise EngineError where the engine's package is missing."""
    found = find_spec(name)
    if name == "vllm" and (found is None or found.origin is None):  # a mere folder of that name has no origin
        raise EngineError(
            "rl.engine = 'vllm', and vLLM is not installed here. `make vllm-env` makes an environment that has it "
            "(.vllm-env, about 2 GB); run .vllm-env/bin/thinkvl. Or use rl.engine: transformers"
        )


def check_sizes(name: str, model_path: str) -> None:
    """Raise EngineError where vLLM's CPU kernels do not know the model's sizes."""
    if name != "vllm" or torch.cuda.is_available():
        return
    text = family_at(model_path).load_config(model_path).text_config
    wrong = [
        f"{key} = {getattr(text, key)} (must be {size})"
        for key, size in VLLM_CPU_LATENTS.items()
        if getattr(text, key) != size
    ]
    experts = ("hidden_size", "moe_intermediate_size")
    wrong += [
        f"{key} = {getattr(text, key)} (must be a multiple of {_CPU_EXPERTS})"
        for key in experts
        if getattr(text, key) % _CPU_EXPERTS
    ]
    if wrong:
        raise EngineError(
            f"vLLM on a CPU cannot run {model_path}: {', '.join(wrong)}. Use rl.engine: transformers, "
            "another model, or a GPU"
        )


def _transformers(spec: EngineSpec) -> Engine:
    model = family_at(spec.model_path).load_model(spec.model_path, dtype=getattr(torch, spec.dtype))
    torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() else "cpu")
    return TransformersEngine(
        model, stop_ids=spec.stop_ids, barred_ids=spec.barred_ids, record_experts=spec.record_experts
    )


def _vllm(spec: EngineSpec) -> Engine:
    from rollouts.engines.vllm import VllmEngine, VllmLimits  # two gigabytes that few have

    return VllmEngine(
        spec.model_path,
        dtype=spec.dtype,
        stop_ids=spec.stop_ids,
        barred_ids=spec.barred_ids,
        limits=VllmLimits(context=spec.context, gpu_share=0.85 * spec.gpu_share),
    )


ENGINES: Mapping[str, Callable[[EngineSpec], Engine]] = {"transformers": _transformers, "vllm": _vllm}
