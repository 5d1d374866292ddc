"""Optimizers and learning-rate schedules for the SFT stages and for RL."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from configs.errors import UserError
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from rl.learner.lora import adapter_experts

_FAST = 1e-4  # a rate at which updates of usual weights (0.02) reach bfloat16's resolution, 1/256 of a weight

_NO_ADAPTERS: Mapping[str, int] = {}


class MuonWithAdamW(torch.optim.Optimizer):
    """`torch.optim.Muon` on the matrices and AdamW on norms, embeddings and the head (Moonlight §2.2).

    `torch.optim.Muon` takes 2-D tensors only, so each expert of a fused 3-D tensor, and the gate and up halves of
    `gate_up_proj`, become views that share the parameter's memory and take views of its gradient. `experts` are the
    `rl.learner.lora.adapter_experts` of the model: the adapter of each expert is a matrix, too.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        config: OptimizerConfig,
        experts: Mapping[str, int] = _NO_ADAPTERS,
    ) -> None:
        named = [(name, p) for name, p in named if p.requires_grad]
        self._matrices = [(name, p) for name, p in named if is_matrix(name, p)]
        rest = [(name, p) for name, p in named if not is_matrix(name, p)]
        self._experts = experts
        self._views = [[nn.Parameter(v) for v in matrix_views(n, p.detach(), experts)] for n, p in self._matrices]
        super().__init__([p for _, p in named], {})
        self._muon = torch.optim.Muon(
            [{"params": [v for views in self._views for v in views]}],
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            adjust_lr_fn="match_rms_adamw",  # 0.2 sqrt(max(A, B)): Moonlight eq. 4
        )
        self._adamw = torch.optim.AdamW(
            decay_groups(rest, config.weight_decay),
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]  # one schedule steers both

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of both optimizers. Closures are not supported."""
        for (name, parameter), views in zip(self._matrices, self._views, strict=True):
            gradient = parameter.grad
            grads = [None] * len(views) if gradient is None else matrix_views(name, gradient, self._experts)
            for view, grad in zip(views, grads, strict=True):
                view.grad = grad  # None, as after a step without images: neither momentum nor decay moves the matrix
        self._muon.step()
        self._adamw.step()
        self._muon.zero_grad()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the model's own parameters."""
        for _, parameter in self._matrices:
            parameter.grad = None
        self._adamw.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The state of both optimizers."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict()`; the schedule's learning rates come along in the groups."""
        self._muon.load_state_dict(state_dict["muon"])
        self._adamw.load_state_dict(state_dict["adamw"])
        self.param_groups = [*self._muon.param_groups, *self._adamw.param_groups]


def is_matrix(name: str, parameter: torch.Tensor) -> bool:
    """True for weights that Muon orthogonalises: not norms, biases, embeddings, position tables, convs, the head."""
    named_out = any(part in name for part in ("embed", "lm_head", "patch_embed", "position", "norm"))
    return not named_out and parameter.ndim in (2, 3)


def matrix_views(name: str, tensor: torch.Tensor, experts: Mapping[str, int] = _NO_ADAPTERS) -> list[torch.Tensor]:
    """The 2-D matrices inside a parameter: itself, or each expert's, with gate and up apart."""
    if name in experts and ".lora_A." in name:
        return list(tensor.chunk(experts[name]))
    if name in experts:
        return list(tensor.unflatten(1, (-1, experts[name])).unbind(2))
    parts = tensor.unbind(0) if tensor.ndim == 3 else (tensor,)
    return [half for part in parts for half in (part.chunk(2) if name.endswith("gate_up_proj") else (part,))]


def is_decayed(name: str, parameter: torch.Tensor) -> bool:
    """True for weights that decay: not norms, biases, token embeddings and position tables."""
    return parameter.ndim > 1 and not any(part in name for part in ("norm", "embed_tokens", "position"))


def decay_groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of parameters: those that decay, and those that do not. Either may be empty."""
    named = list(named)
    return [
        {"params": [p for name, p in named if is_decayed(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not is_decayed(name, p)], "weight_decay": 0.0},
    ]


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Scale the gradients down to a norm of at most `limit`; return the norm before, over all ranks where sharded."""
    norm = nn.utils.clip_grad_norm_(parameters, limit)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The optimizer of a recipe, over the model's trainable parameters. Weight decay follows `is_decayed`."""
    if config.name == "muon":
        return MuonWithAdamW(model.named_parameters(), config, adapter_experts(model))
    trainable = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return build_adamw(decay_groups(trainable, config.weight_decay), config)


def build_adamw(groups: Sequence[dict[str, Any]], config: OptimizerConfig) -> torch.optim.Optimizer:
    """AdamW with moments of `config.state`. A group's own learning rate and weight decay take precedence.

    Raises UserError where torchao is needed and cannot be imported.
    """
    if config.state is None:
        return torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
    try:
        from rl.learner.low_bit_adamw import LeanAdamW
    except ImportError as error:
        raise UserError(
            f"optimizer.state = {config.state!r} needs torchao, which cannot be imported ({error}): "
            "pip install 'thinkvl[lean]', or leave optimizer.state out"
        ) from error
    return LeanAdamW(groups, config)


def rounding_note(model: ModelConfig, optimizer: OptimizerConfig, *, stage: str) -> str | None:
    """What to tell a user whose bfloat16 weights would swallow most updates; None where they do not."""
    rate = optimizer.learning_rate
    if model.dtype != "bfloat16" or model.lora is not None or optimizer.state is not None or rate > _FAST:
        return None
    cure = "{0}.optimizer.name: adamw with {0}.optimizer.state" if optimizer.name == "muon" else "{0}.optimizer.state"
    return (
        f"note: weights in bfloat16 hold three digits, and {optimizer.name} rounds to the nearest: at "
        f"{stage}.optimizer.learning_rate = {rate:g} most of its updates are lost. {cure.format(stage)} rounds "
        "stochastically; model.dtype: float32 and LoRA lose nothing"
    )


def set_learning_rate(group: dict[str, Any], rate: float | torch.Tensor) -> None:
    """Give a group of parameters a learning rate; some optimizers keep theirs in a tensor that must stay the same."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(float(rate))
    else:
        group["lr"] = rate


def learning_rate_factor(step: int, *, total: int, config: OptimizerConfig) -> float:
    """Share of the peak learning rate at `step` (0-based): linear warm-up, then the named decay to the final share."""
    if step < config.warmup_steps:
        return (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "constant":
        return 1.0
    progress = min(1.0, (step - config.warmup_steps) / max(1, total - config.warmup_steps))
    shape = 1.0 - progress if config.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.final_fraction + (1.0 - config.final_fraction) * shape


def build_schedule(
    optimizer: torch.optim.Optimizer, config: OptimizerConfig, *, total: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule over `total` optimizer steps."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, total=total, config=config)
    )


def advance(schedule: torch.optim.lr_scheduler.LambdaLR, *, to: int | None = None) -> None:
    """Move a schedule on by one optimizer step, or up to step `to`; it never goes back."""
    with warnings.catch_warnings():
        # It may well move before the optimizer has: the first update can be refused, or a step have no samples.
        warnings.filterwarnings("ignore", message=r"Detected call of `lr_scheduler.step\(\)` before")
        for _ in range(1 if to is None else to - schedule.last_epoch):
            schedule.step()
