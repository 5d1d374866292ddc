"""RMS norm with a backward pass of its own: on a CPU autograd's takes twice as long and keeps half as much again."""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3RMSNorm


class KimiVLRMSNorm(DeepseekV3RMSNorm):
    """transformers' RMS norm, the same to the bit; where it learns in float32, its gradient takes fewer passes."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """(..., H) to (..., H)."""
        exact = hidden_states.dtype == self.weight.dtype == torch.float32
        if not (exact and torch.is_grad_enabled()):
            return super().forward(hidden_states)
        return _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)  # pyright: ignore[reportReturnType]


class _RMSNorm(torch.autograd.Function):
    """`y = w n`, `n = r x`, `r = (mean(x^2) + eps)^-1/2`. Keeps `x` and one number a row."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Compute what `DeepseekV3RMSNorm` computes, in its order."""
        scale = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """`dL/dw = sum g n` over the rows, `dL/dx = r (w g - n mean(w g n))`."""
        x, weight, scale = ctx.saved_tensors
        normed = x * scale
        product = gradient * normed
        of_weight = product.flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        mean = product.mul_(weight).mean(-1, keepdim=True)
        of_x = (gradient * weight).addcmul_(normed, mean, value=-1).mul_(scale)
        return of_x, of_weight, None


def take_norms(model: torch.nn.Module) -> None:
    """Give the norms of a model that transformers has built this backward pass; their weights and names stay."""
    for module in model.modules():
        if type(module) is DeepseekV3RMSNorm:
            module.__class__ = KimiVLRMSNorm
