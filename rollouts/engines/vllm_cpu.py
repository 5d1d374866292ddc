"""Three errors of vLLM's CPU build and the way round each; on a GPU nothing is done.

Found in vLLM 0.32 and confirmed by tests/vllm_engine, which take each way round out: two give wrong answers in silence,
and the parity check fails; one ends the worker, on processors with AMX alone.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

# The kernel of latent attention. On a processor with AMX vLLM would take AMX_MLA, which refuses float32, and any new
# weights in bfloat16: it packs them again while their layer is empty.
ATTENTION: str | None = "CPU_MLA"


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
