"""Numbers of a model, counted on the meta device: no weights are read, and none are made.

Shapes: H width of the text model, w width of the vision tower.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from configs.errors import UserError
from configs.model import ModelConfig
from rl.learner.lora import prepare_training
from rl.learner.nf4 import quantized_names
from rl.learner.optimizer import is_matrix
from rollouts.model_family import FAMILIES, TINY_FAMILY, VisionLanguageConfig, VisionLanguageModel, family_at, family_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSizes:
    """Parameters of a model as a stage trains it. Adapters are counted apart: engines get them merged."""

    config: VisionLanguageConfig
    parameters: int  # of the model, without adapters
    quantized: int  # of them, in 4 bits under adapters; 0 without `lora.quantization`
    largest_quantized: int  # numbers of the largest of these tensors, which is made whole where it is used
    vision: int  # in tower and projector
    adapters: int  # parameters of LoRA, in float32
    trained: int  # parameters that get a gradient, adapters among them
    matrices: int  # of those, the ones that Muon orthogonalises
    largest_unit: int  # parameters of the largest part that FSDP makes whole at a time
    largest_tensor: int  # numbers of the largest tensor, which a weight sync makes whole
    units: tuple[int, ...]  # trained parameters of each part, in the order of the forward pass
    trains_vision: bool
    trains_text: bool

    @property
    def kv_numbers(self) -> int:
        """Cached numbers of a token in all layers: latent attention keeps one latent and one rotary key a layer."""
        text = self.config.text_config
        return text.num_hidden_layers * (text.kv_lora_rank + text.qk_rope_head_dim)


def measure_sizes(
    config: VisionLanguageConfig,
    model: ModelConfig,
    freeze: tuple[str, ...] | None = None,
    *,
    vision_alone: bool = False,
) -> ModelSizes:
    """Build the model on the meta device as the learner does, and count. `freeze` replaces the recipe's own.

    `vision_alone`: the language model is not trained, whatever the recipe freezes.
    """
    frozen = model.freeze if freeze is None else freeze
    key = (config.to_json_string(), repr((model, frozen, vision_alone)))
    if key not in _CACHE:
        _CACHE[key] = _built(config, model, frozen, vision_alone)
    return _CACHE[key]


def config_of(model: ModelConfig) -> VisionLanguageConfig:
    """The config of `model.path`: of the tiny model, of a folder, or of published weights, which need no network.

    Raises UserError where the path is neither a folder nor the name of published weights.
    """
    if model.path == "tiny":
        return FAMILIES[TINY_FAMILY].tiny_config(asdict(model.tiny))
    if Path(model.path).expanduser().exists():
        return family_at(model.path).load_config(model.path)
    known = {name: family for name, family in _published().items() if name == model.path}
    if not known:
        raise UserError(
            f"model.path = {model.path!r}: its sizes are not known here; must be tiny, a folder, or one of "
            f"{', '.join(_published())}. Download the model, or only its config.json, and give the folder"
        )
    return known[model.path].published_config()


def _published() -> dict[str, Any]:
    return {name: family for family in FAMILIES.values() for name in family.LICENCES}


_CACHE: dict[tuple[str, str], ModelSizes] = {}  # configs cannot be hashed, so by their JSON


def _built(
    config: VisionLanguageConfig, settings: ModelConfig, freeze: tuple[str, ...], vision_alone: bool
) -> ModelSizes:
    with torch.device("meta"):
        model = family_of(config).new_model(config)
    own = {id(p) for p in model.parameters()}
    quantized = [getattr(*found).numel() for found in quantized_names(model)] if settings.quantization else []
    plain = ModelConfig(path=settings.path, dtype=settings.dtype, lora=settings.lora, freeze=freeze, tiny=settings.tiny)
    prepare_training(model, plain, base=settings.path)
    vision = {id(p) for module in model.vision_modules for p in module.parameters()}
    for parameter in model.parameters() if vision_alone else ():
        parameter.requires_grad_(id(parameter) in vision and parameter.requires_grad)
    parameters = [p for p in model.parameters() if id(p) in own]
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    extra = sum(b.numel() for n, b in model.named_buffers() if n in model.state_dict())
    return ModelSizes(
        config=config,
        parameters=sum(p.numel() for p in parameters) + extra,
        quantized=sum(quantized),
        largest_quantized=max(quantized, default=0),
        vision=sum(p.numel() for p in parameters if id(p) in vision),
        adapters=sum(p.numel() for p in model.parameters() if id(p) not in own),
        trained=sum(p.numel() for _, p in trained),
        matrices=sum(p.numel() for name, p in trained if is_matrix(name, p)),
        largest_unit=max(sum(p.numel() for p in unit.parameters()) for unit in _disjoint(model)),
        largest_tensor=max(p.numel() for p in parameters),
        units=tuple(sum(p.numel() for p in unit.parameters() if p.requires_grad) for unit in _disjoint(model)),
        trains_vision=any(id(p) in vision for _, p in trained),
        trains_text=any(id(p) not in vision for _, p in trained),
    )


def _disjoint(model: VisionLanguageModel) -> list[torch.nn.Module]:
    """The parts that FSDP gathers, without those that only hold others, such as the whole tower."""
    units = model.shard_units()
    holds_others = {id(unit) for unit in units for other in units if other is not unit and _inside(other, unit)}
    return [unit for unit in units if id(unit) not in holds_others]


def _inside(inner: torch.nn.Module, outer: torch.nn.Module) -> bool:
    return any(module is inner for module in outer.modules())
