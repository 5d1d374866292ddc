"""Frozen weights in 4 bits, the base of QLoRA (arXiv:2305.14314): NF4 in blocks of 64, with scales that are quantised.

bitsandbytes packs and unpacks the numbers; only recipes with `lora.quantization` import it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from configs.errors import UserError
from rollouts.model_family import VisionLanguageModel, family_of

BLOCK = 64  # numbers that share a scale
BYTES = 1 / 2 + (1 + 4 / 256) / BLOCK  # of a number: 256 scales of one byte share one of four
_SAME = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)


class Nf4Weight(torch.Tensor):
    """A frozen weight that any operation reads as a whole tensor of its own shape and type.

    It is made whole for the one operation, and made whole again for the gradient: autograd keeps this tensor, not the
    whole one. A transposed weight stays packed, since products ask for that. Nothing can be written into it.
    """

    @staticmethod
    def __new__(cls: Any, codes: torch.Tensor, state: Any, shape: torch.Size, *, transposed: bool = False) -> Any:
        """A tensor that has no memory of its own."""
        sizes, strides = list(shape), list(torch.empty(shape, device="meta").stride())
        if transposed:
            sizes[-2:], strides[-2:] = sizes[:-3:-1], strides[:-3:-1]
        make: Any = torch.Tensor._make_wrapper_subclass  # pyright: ignore[reportAttributeAccessIssue]
        return make(cls, sizes, strides=strides, dtype=state.dtype, device=codes.device)

    def __init__(self, codes: torch.Tensor, state: Any, shape: torch.Size, *, transposed: bool = False) -> None:
        """`codes` are two numbers a byte, `state` bitsandbytes' scales, `shape` that of the weight as it was packed."""
        self.codes, self.state, self.packed_shape, self.transposed = codes, state, shape, transposed

    def whole(self) -> torch.Tensor:
        """The weight as an ordinary tensor: new memory."""
        from bitsandbytes.functional import dequantize_4bit  # pyright: ignore[reportMissingImports]

        made = dequantize_4bit(self.codes, self.state).view(self.packed_shape)
        return made.transpose(-2, -1) if self.transposed else made

    @property
    def packed_bytes(self) -> int:
        """Bytes of the numbers and their scales."""
        held = (self.codes, self.state.absmax, self.state.state2.absmax)
        return sum(tensor.numel() * tensor.element_size() for tensor in held)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        made = Nf4Weight(
            self.codes.clone(), copy.deepcopy(self.state, memo), self.packed_shape, transposed=self.transposed
        )
        return nn.Parameter(made, requires_grad=False) if isinstance(self, nn.Parameter) else made

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Nf4Weight(shape={tuple(self.shape)}, dtype={self.dtype}, device={self.device})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        own = args[0] if args and isinstance(args[0], cls) else None
        if own is not None and func in _SAME:
            return cls(own.codes, own.state, own.packed_shape, transposed=own.transposed)
        if own is not None and _turns(func, args):
            return cls(own.codes, own.state, own.packed_shape, transposed=not own.transposed)
        args, kwargs = pytree.tree_map_only(cls, cls.whole, (args, kwargs or {}))
        return func(*args, **kwargs)


def _turns(func: Any, args: Any) -> bool:
    """Whether an operation exchanges the last two dimensions."""
    if func is torch.ops.aten.t.default:
        return True
    if func is not torch.ops.aten.transpose.int:
        return False
    rank = args[0].ndim
    return {args[1] % rank, args[2] % rank} == {rank - 2, rank - 1}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor; of a weight in 4 bits the whole one."""
    return tensor.whole() if isinstance(tensor, Nf4Weight) else tensor


def quantized_names(model: VisionLanguageModel) -> Iterator[tuple[nn.Module, str]]:
    """The modules and names of the weights that QLoRA keeps in 4 bits, before adapters are put around them.

    They are the language model's matrices: attention, dense layers, shared and routed experts. Embeddings, head, norms,
    router, vision tower and projector keep their type, as is usual: they are few, and errors in them cost more.
    """
    family = family_of(model.config)
    modules = re.compile("|".join(f"(?:{family.LORA_MODULES[name]})" for name in ("attention", "mlp")))
    ends = tuple(end for found in family.LORA_PARAMETERS.values() for end in found)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and modules.fullmatch(name):
            yield module, "weight"
        for own, _ in module.named_parameters(recurse=False):
            if f"{name}.{own}".endswith(ends):
                yield module, own


def whole_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The model's state dict with whole weights; those that are in 4 bits come as copies on the CPU."""
    return {n: t.whole().cpu() if isinstance(t, Nf4Weight) else t for n, t in model.state_dict().items()}


@torch.no_grad()
def quantize_base(model: VisionLanguageModel, device: torch.device | None = None) -> None:
    """Pack the weights of `quantized_names` into 4 bits, in place, and bring the whole model to `device`.

    Each weight goes there alone and is packed there, so that a device needs room for the packed model and one weight.
    Raises UserError where bitsandbytes cannot be imported.
    """
    try:
        from bitsandbytes.functional import quantize_4bit  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            f"model.lora.quantization = 'nf4' needs bitsandbytes, which cannot be imported ({error}): "
            "pip install 'thinkvl[qlora]', or leave model.lora.quantization out"
        ) from error
    for module, name in quantized_names(model):
        weight = getattr(module, name).detach()
        # As one row: on a CPU bitsandbytes unpacks rows wrongly that blocks do not divide.
        flat = weight.to(device).reshape(-1)
        codes, state = quantize_4bit(flat, blocksize=BLOCK, compress_statistics=True, quant_type="nf4")
        module._parameters[name] = nn.Parameter(Nf4Weight(codes, state, weight.shape), requires_grad=False)
    for tensor in (*model.parameters(), *model.buffers()):
        if not isinstance(tensor, Nf4Weight):
            tensor.data = tensor.data.to(device)
