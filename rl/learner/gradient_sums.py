"""Gradients of half-precision weights, summed over micro-batches in fp32.

A sum in bfloat16 keeps three digits: after 64 micro-batches it is off by half a percent, after 1,024 by three, since
what is added has become small beside what is there. Megatron-LM sums in fp32 for the same reason (`main_grad`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn


class GradientSums:
    """Takes over the gradient of each half-precision parameter after every backward pass; `finish` returns the sum.

    Other parameters are left to PyTorch. A single micro-batch costs no memory: the sum becomes fp32 with the second.
    Shards of FSDP are taken over as soon as they are reduced.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._sums: dict[nn.Parameter, torch.Tensor] = {}
        for parameter in parameters:
            if parameter.requires_grad and parameter.dtype.itemsize < 4:
                parameter.register_post_accumulate_grad_hook(self._take)

    def finish(self) -> None:
        """Give each parameter its sum as its gradient, rounded once to the parameter's type."""
        while self._sums:  # one after the other: each sum is freed before the next is rounded
            parameter, total = self._sums.popitem()
            if parameter.grad is not None:  # what did not come from a backward pass, as in threads
                total = _added(total, parameter.grad)
            parameter.grad = total.to(parameter.dtype)
            del total

    def _take(self, parameter: torch.Tensor) -> None:
        assert isinstance(parameter, nn.Parameter)
        assert parameter.grad is not None
        own = self._sums.get(parameter)
        self._sums[parameter] = parameter.grad if own is None else _added(own, parameter.grad)
        parameter.grad = None


def summing_dtype(dtype: torch.dtype) -> torch.dtype:
    """The type in which gradients of `dtype` are summed: float32, or float64 where they have it."""
    return torch.promote_types(dtype, torch.float32)


def _added(total: torch.Tensor, more: torch.Tensor) -> torch.Tensor:
    """`total + more` in fp32, into `total` where that is fp32 already."""
    return total.to(summing_dtype(total.dtype)).add_(more)
