"""Counts the layers that a model runs, so that a long prefill or decoding step shows progress."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn


class LayerCounter:
    """Counts forward passes of the given modules; `count` never decreases."""

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        self.count = 0
        for module in modules:
            module.register_forward_hook(self._add)

    def _add(self, *_: object) -> None:
        self.count += 1
