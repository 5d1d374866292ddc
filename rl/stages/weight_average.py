"""Model averaging (k1.5 §2.4): the weights of a long and a short model, added up tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from configs.errors import UserError


def average_weights(
    long: Mapping[str, torch.Tensor],
    short: Mapping[str, torch.Tensor],
    *,
    weight: float,
    on_tensor: Callable[[], object] = lambda: None,
) -> dict[str, torch.Tensor]:
    """`(1 - weight) * long + weight * short` of each tensor, computed in float32, in the long model's types.

    Raises UserError where the two models do not have the same tensors.
    """
    _refuse_other_shapes(long, short)
    averaged: dict[str, torch.Tensor] = {}
    for name, own in long.items():
        other = short[name].to(own.device)
        exact = own.double() if own.dtype == torch.float64 else own.float()
        averaged[name] = torch.lerp(exact, other.to(exact.dtype), weight).to(own.dtype)
        on_tensor()
    return averaged


def _refuse_other_shapes(long: Mapping[str, torch.Tensor], short: Mapping[str, torch.Tensor]) -> None:
    names = sorted(long.keys() | short.keys())
    shapes = {name: tuple(tuple(m[name].shape) if name in m else None for m in (long, short)) for name in names}
    unlike = [name for name, (one, other) in shapes.items() if one != other]
    if unlike:
        name = unlike[0]
        raise UserError(
            f"the two models have {len(unlike)} tensors that do not match, the first {name} with the shapes "
            f"{shapes[name][0]} and {shapes[name][1]}: only models of one architecture can be averaged; "
            "name another short_model"
        )
