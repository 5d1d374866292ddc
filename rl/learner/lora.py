"""LoRA by peft (arXiv:2106.09685): small matrices are trained, and merged wherever weights leave the learner.

The adapters live inside the model, so that learner and SFT see an ordinary model with few trainable parameters;
engines, checkpoints of stages and exports get merged weights under the model's own names.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from peft import LoraConfig as PeftConfig
from peft import get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from safetensors.torch import load_file, save_file
from torch import nn

from configs.errors import UserError
from configs.model import LoraConfig, ModelConfig
from rl.learner.nf4 import whole
from rollouts.model_family import VisionLanguageModel, family_of

ModelT = TypeVar("ModelT", bound=nn.Module)
Cast = Callable[[str, torch.Tensor], torch.Tensor]  # a tensor by name to the type in which it is wanted
_NAME = "default"


def prepare_training(model: VisionLanguageModel, config: ModelConfig, *, base: str) -> None:
    """Freeze what the recipe names under `freeze`, add its adapters, switch checkpointing on, in place.

    `base` is where `model` came from.

    Raises UserError where a name under `freeze` is in no parameter's name, or nothing is left to train.
    """
    if config.gradient_checkpointing:
        trained: Any = model
        trained.activation_checkpointing_enable({"use_reentrant": False})
    if config.lora is not None:
        _add_adapters(model, config.lora, base)
    _freeze(model, config.freeze)


def as_it_is(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor."""
    return tensor


def merged_weights(model: nn.Module, cast: Cast = as_it_is) -> Iterator[tuple[str, torch.Tensor]]:
    """The model's state dict under its own names, with `W + scale B A` for every adapted weight, one after the other.

    What is not adapted comes as it is, not as a copy. Merged weights are new: routed experts would be a second model,
    so take each off the device before the next; so are those of a base in 4 bits, made whole. `cast` is applied to
    each, after the merge.
    """
    layers = dict(adapted_layers(model))
    for name, tensor in without_adapters(model.state_dict()).items():
        yield name, cast(name, add_delta(tensor, adapter_delta(layers[name])) if name in layers else whole(tensor))


def merged_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """`merged_weights` on the CPU, for `save_pretrained`."""
    return {name: tensor.detach().cpu() for name, tensor in merged_weights(model)}


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Every layer with an adapter, under the name of the weight that it adapts."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield f"{_plain(name)}.{getattr(module, 'parameter_name', 'weight')}", module


def adapter_experts(model: nn.Module) -> dict[str, int]:
    """How many experts share each trained matrix of a fused tensor's adapter, by parameter name.

    peft stacks the rows of the experts' A, `[experts * rank, in]`, and interleaves the columns of their B,
    `[out, rank * experts]`.
    """
    return {
        f"{name}.{half}.{_NAME}.weight": module.num_experts
        for name, module in model.named_modules()
        if isinstance(module, ParamWrapper)
        for half in ("lora_A", "lora_B")
    }


def adapter_delta(layer: Any) -> torch.Tensor:
    """What the adapter adds to its weight: `scale B A`."""
    return layer.get_delta_weight(_NAME)


def adapter_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """The adapters' own tensors by state-dict name; empty without adapters."""
    return {name: tensor for name, tensor in model.state_dict().items() if "lora_" in name}


def copy_model(model: ModelT) -> ModelT:
    """A deep copy, but for frozen parameters, which stay the model's own: nothing ever changes them.

    With adapters, or frozen parts, a second model so takes little memory.
    """
    return copy.deepcopy(model, {id(p): p for p in model.parameters() if not p.requires_grad})


def save_adapters(model: nn.Module, folder: Path, state: Mapping[str, torch.Tensor] | None = None) -> None:
    """Write the adapters alone, as `peft.PeftModel.from_pretrained(model, folder)` reads them; nothing without any.

    `state` holds their tensors by state-dict name where the model's own are shards.
    """
    if not any(isinstance(module, LoraLayer) for module in model.modules()):
        return
    folder.mkdir(parents=True, exist_ok=True)
    weights = get_peft_model_state_dict(model, state_dict=state, adapter_name=_NAME)
    tensors = {f"base_model.model.{name}": tensor.contiguous().cpu() for name, tensor in weights.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    settings: Any = model.peft_config
    settings[_NAME].save_pretrained(folder)


@torch.no_grad()
def load_adapters(model: nn.Module, folder: Path) -> None:
    """Give the model's adapters the values that `save_adapters` wrote."""
    saved = load_file(folder / "adapter_model.safetensors")
    for name, own in adapter_state(model).items():
        own.copy_(saved[f"base_model.model.{name.replace(f'.{_NAME}', '')}"])


def _add_adapters(model: VisionLanguageModel, lora: LoraConfig, base: str) -> None:
    family = family_of(model.config)
    modules = "|".join(f"(?:{family.LORA_MODULES[name]})" for name in lora.targets if name in family.LORA_MODULES)
    parameters = [end for name in lora.targets for end in family.LORA_PARAMETERS.get(name, ())]
    settings = PeftConfig(
        base_model_name_or_path=base,
        r=lora.rank,
        lora_alpha=int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,  # pyright: ignore[reportArgumentType]
        target_modules=modules or [],
        target_parameters=parameters or None,
    )
    inject_adapter_in_model(settings, model, adapter_name=_NAME)
    for name, parameter in model.named_parameters():
        if "lora_" in name:  # in bfloat16 most of a small update would be rounded away
            parameter.data = parameter.data.to(torch.promote_types(parameter.dtype, torch.float32))


def _freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not any(pattern in name for name in names):
            parts = sorted({part for name in names for part in name.split(".") if not part.isdigit()})
            raise UserError(f"freeze: no parameter's name holds {pattern!r}; names are made of {', '.join(parts)}")
    for name, parameter in model.named_parameters():
        if any(pattern in name for pattern in patterns):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError(f"freeze = {list(patterns)}: nothing is left to train; freeze less")


def without_adapters(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict without the adapters' tensors, under the names that the model had before adapters."""
    return {_plain(name): tensor for name, tensor in state.items() if "lora_" not in name}


def add_delta(weight: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Their sum, in the finer of both types, as the weight's."""
    return (weight + delta).to(weight.dtype)


def _plain(name: str) -> str:
    """The name that a module or parameter had before adapters were put around it."""
    return name.replace(".base_layer", "")


def to_arrays(weights: Iterable[tuple[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    """Named tensors copied to arrays. numpy has no bfloat16, which goes as float32: that is exact."""
    return {name: (t.float() if t.dtype == torch.bfloat16 else t).detach().cpu().numpy().copy() for name, t in weights}
