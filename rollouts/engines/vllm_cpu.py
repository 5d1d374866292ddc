"""Two errors of vLLM's CPU build that give wrong answers in silence, and the way round each; on a GPU nothing is done.

Found in vLLM 0.32 and confirmed by tests/vllm_engine, which take each way round out and watch the parity check fail.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]


def compilation_config() -> dict[str, Any]:
    """For `EngineArgs`: rotary positions by PyTorch. The CPU kernel rotates q and k of latent attention wrongly."""
    return {"custom_ops": ["-rotary_embedding"]} if current_platform.is_cpu() else {}


def forget_packed_experts(model: nn.Module) -> None:
    """Call before new weights: experts are packed for the CPU only where no kernel is set up yet, so once."""
    if not current_platform.is_cpu():
        return
    for module in model.modules():
        method: Any = getattr(module, "quant_method", None)
        if hasattr(method, "moe_kernel"):
            method.moe_kernel = None
