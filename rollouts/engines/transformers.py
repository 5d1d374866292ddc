"""The embedded engine: our own model in process, continuous batching, prompt and image encoded once per group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from configs.rl import SamplingConfig
from kimi_vl import KimiVLForConditionalGeneration
from rollouts.engines.batch import BatchLimits, RunningBatch
from rollouts.engines.pulse import Pulse
from rollouts.engines.rows import Group
from rollouts.engines.sampling import barred_token_mask
from rollouts.engines.turn import Turn
from rollouts.types import Completion, Request
from rollouts.weights import checksums


class TransformersEngine:
    """Generates with a `KimiVLForConditionalGeneration`.

    A sample's tokens depend on its prompt, the weights, the request's seed and its index; what else is in the batch
    can change the last bits of a logit (matrix products of another shape), and nothing more.
    """

    def __init__(
        self,
        model: KimiVLForConditionalGeneration,
        *,
        stop_ids: Sequence[int],
        barred_ids: Sequence[int],
        version: int = 0,
        limits: BatchLimits | None = None,
        record_experts: bool = False,
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self._stop_ids = frozenset(stop_ids)
        self._barred = barred_token_mask(model.config.text_config.vocab_size, barred_ids).to(model.device)
        self._version, self._record_experts = version, record_experts
        self._limits = limits or BatchLimits()
        self._aborts = 0
        self._turn = Turn()
        self._life = Pulse(self.model)

    @property
    def version(self) -> int:
        """The policy version that the next token will come from."""
        return self._version

    def load_weights(self, weights: Mapping[str, np.ndarray | torch.Tensor], *, version: int) -> None:
        """Copy `weights`, named as in the model's state dict, in place.

        Samples that run go on with the latents they have, and what they write from here on is a segment of `version`.
        Raises ValueError, before anything is changed, if names or shapes differ from the model's.
        """
        own = self.model.state_dict()
        if own.keys() != weights.keys():
            missing, extra = sorted(own.keys() - weights.keys())[:3], sorted(weights.keys() - own.keys())[:3]
            raise ValueError(f"weights of version {version} do not fit: missing {missing}, unexpected {extra}")
        for name, tensor in own.items():
            if tuple(weights[name].shape) != tuple(tensor.shape):
                raise ValueError(f"{name}: shape {tuple(weights[name].shape)}, the engine has {tuple(tensor.shape)}")
        with self._turn.taken():
            for name, tensor in own.items():
                tensor.copy_(torch.as_tensor(weights[name]))
            self._version = version

    def held(self) -> dict[str, int]:
        """The checksum of every tensor of the model."""
        return checksums(self.model.state_dict())

    @property
    def pulse(self) -> int:
        """A number that grows while the engine works."""
        return self._life.count

    def abort(self) -> None:
        """End every stream that runs; its unfinished samples come back with what they have."""
        self._aborts += 1

    def close(self) -> None:
        """End what runs. The model belongs to the caller."""
        self.abort()

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        """Return `request.n` completions for each request, in order."""
        results: dict[int, list[Completion]] = dict(self.stream(requests, sampling))
        return [results[i] for i in range(len(requests))]

    def stream(self, requests: Sequence[Request], sampling: SamplingConfig) -> Iterator[tuple[int, list[Completion]]]:
        """Yield (index of the request, its completions) as requests finish; work is done while the caller asks."""
        aborts = self._aborts
        batch = RunningBatch(
            self.model,
            requests,
            sampling,
            limits=self._limits,
            stop_ids=self._stop_ids,
            barred=self._barred,
            record_experts=self._record_experts,
            version=lambda: self._version,
        )
        while batch.busy:
            groups: list[Group]
            with self._turn.taken(), torch.inference_mode():
                groups = batch.step() if aborts == self._aborts else batch.abort()
            for group in groups:
                yield group.index, group.completions()
