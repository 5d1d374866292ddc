"""The part of a model's state dict that training changes: what checkpoints hold.

Frozen parameters, such as the base under LoRA, are read from the model's folder again. `rl.checkpoint_writer` notes
the hashes of its files in the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def trained_names(model: nn.Module) -> frozenset[str]:
    """Names of the parameters that are trained; a tied one has several."""
    return frozenset(n for n, p in model.named_parameters(remove_duplicate=False) if p.requires_grad)


def trained_state(model: nn.Module, trained: frozenset[str] | None = None) -> dict[str, torch.Tensor]:
    """The state dict without frozen parameters. `trained` names the others; by default those that need a gradient."""
    kept = trained_names(model) if trained is None else trained
    frozen = {name for name, _ in model.named_parameters(remove_duplicate=False)} - kept
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def load_trained_state(model: nn.Module, state: Mapping[str, Any], trained: frozenset[str] | None = None) -> None:
    """Restore `trained_state()`. Raises RuntimeError where it is the state of a model with other trained parameters."""
    wanted = trained_state(model, trained).keys()
    if state.keys() != wanted:
        names = ", ".join(sorted(state.keys() ^ wanted)[:3])
        raise RuntimeError(f"the checkpoint is of a model with other trained parameters; they differ in {names}")
    model.load_state_dict(state, strict=False)
