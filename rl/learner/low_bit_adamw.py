"""AdamW with moments in 8 bits, bfloat16 or float32, on torchao's optimizers. Only recipes that use it import it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torchao.optim import AdamW8bit  # pyright: ignore[reportMissingImports]

from configs.optimizer import OptimizerConfig

_FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class LeanAdamW(AdamW8bit):
    """Moments in 8 bits (blocks of 256 with a scale each, arXiv:2110.02861), in bfloat16 or in float32.

    An update is computed in float32; bfloat16 weights are rounded stochastically, so that a learning rate below their
    resolution still moves them in the mean. In 8 bits, tensors of fewer than 4,096 numbers, and those that blocks do
    not divide, keep moments in the weights' type.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], config: OptimizerConfig) -> None:
        self._moments = _FLOATS.get(config.state or "")
        super().__init__(
            groups,
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            bf16_stochastic_round=True,
        )

    def _new_buffer(self, p: torch.Tensor, signed: bool) -> torch.Tensor:
        if self._moments is None:
            return super()._new_buffer(p, signed)
        return torch.zeros_like(p, dtype=self._moments)

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update. Closures are not supported."""
        # torchao compiles the update of each shape; on a CPU that takes minutes, and a compiler that may not be there
        compiles = all(p.device.type != "cpu" for group in self.param_groups for p in group["params"])
        with nullcontext() if compiles else torch.compiler.set_stance("force_eager"):
            super().step()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore `state_dict()` exactly. torch's own method would cast the moments to the weights' type."""
        super().load_state_dict(state_dict)
        if self._moments is None:
            return  # in 8 bits the codes are kept, and the rest has the weights' type
        parameters = [p for group in self.param_groups for p in group["params"]]
        for index, saved in state_dict["state"].items():
            own = self.state[parameters[index]]
            for name, value in saved.items():
                if name != "step":
                    own[name] = value.detach().clone().to(own[name].device)
