"""The embedded engine: our own model in process, continuous batching, prompt and image encoded once per group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import torch

from configs.rl import SamplingConfig
from rollouts.engines.continuous_batching import BatchLimits, RunningBatch
from rollouts.engines.decoder import LatentDecoder
from rollouts.engines.engine_spec import EngineSpec
from rollouts.engines.heartbeat import LayerCounter
from rollouts.engines.protocol import Engine, FinishedGroup
from rollouts.engines.sample_state import RunningGroup
from rollouts.engines.sampling import barred_token_mask
from rollouts.model_family import VisionLanguageModel, family_at
from rollouts.resource_use import CacheMeter, CacheUse
from rollouts.types import Request
from rollouts.weight_stream import Shapes, check_shapes


class TransformersEngine(Engine):
    """Generates with a model in this process.

    A sample's tokens depend on its prompt, the weights, the request's seed and its index. What else is in the batch
    can change the last bits of a logit (matrix products of another shape), and nothing more. Requests with equal
    sampling settings share a batch; a batch that has become empty is dropped.
    """

    def __init__(
        self,
        model: VisionLanguageModel,
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
        self._loading: Mapping[str, torch.Tensor] = {}  # parameters and buffers while weights are loaded
        self._shared: set[str] = set()  # names of tensors in memory of others
        self._batches: dict[SamplingConfig, RunningBatch] = {}
        self._padding_stats: Counter[str] = Counter()
        self._cache_meter = CacheMeter()
        self._layers = LayerCounter([*LatentDecoder(model.text_model).norms, *model.model.vision_tower.layers])

    @property
    def version(self) -> int:
        """The policy version that the next token will come from."""
        return self._version

    @property
    def progress(self) -> int:
        """Grows with every layer that a prefill, an image or a decoding step runs."""
        return self._layers.count

    def add(self, index: int, request: Request, sampling: SamplingConfig) -> None:
        """Queue a request in the batch of its sampling settings."""
        batch = self._batches.get(sampling)
        if batch is None:
            batch = self._batches[sampling] = self._new_batch(sampling)
        batch.add([(index, request)])

    def step(self) -> list[FinishedGroup]:
        """Decode one token of every running sample."""
        finished: list[RunningGroup] = []
        with torch.inference_mode():
            for batch in self._batches.values():
                finished += batch.step()
        self._drop_empty()
        return [(group.index, group.completions()) for group in finished]

    def cancel(self, indices: Iterable[int]) -> list[FinishedGroup]:
        """End these requests with what they have."""
        wanted = set(indices)
        with torch.inference_mode():
            finished = [group for batch in self._batches.values() for group in batch.cancel(wanted)]
        self._drop_empty()
        return [(group.index, group.completions()) for group in finished]

    def start_load(self, shapes: Shapes) -> None:
        """Raise ValueError if names or shapes differ from the model's state dict."""
        own = self.model.state_dict()
        check_shapes({name: tuple(tensor.shape) for name, tensor in own.items()}, shapes)
        parameters = self.model.named_parameters(remove_duplicate=False)
        buffers = self.model.named_buffers(remove_duplicate=False)
        self._loading = {name: tensor for name, tensor in chain(parameters, buffers) if name in own}

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Copy `weights` in place. Running samples keep the latents they have."""
        for name, tensor in weights.items():
            own = self._loading[name]
            if name in self._shared:
                own.data = tensor.to(own.device, own.dtype, copy=True)
                self._shared.discard(name)
            else:
                own.copy_(tensor)

    def share_weights(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Serve from the memory of `weights`; copies of those of another type or device."""
        for name, tensor in weights.items():
            own = self._loading[name]
            if (own.dtype, own.device) == (tensor.dtype, tensor.device):
                own.data = tensor
                self._shared.add(name)
            else:
                self.load_weights({name: tensor})
        return {name: self._loading[name].detach() for name in weights}

    def finish_load(self, version: int) -> None:
        """The next tokens of running samples are a segment of `version`."""
        self._version, self._loading = version, {}

    def served_weights(self) -> Mapping[str, torch.Tensor]:
        """The model's own tensors, by state-dict name."""
        return self.model.state_dict()

    def take_padding_stats(self) -> Counter[str]:
        """Positions `computed` since the last call, and the `padded` ones among them."""
        stats = Counter(self._padding_stats)
        self._padding_stats.subtract(stats)  # not cleared: a step in another thread may be counting
        return stats

    def take_cache_use(self) -> CacheUse:
        """What the KV cache did since the last call. It holds each prompt once for all samples of a group."""
        return self._cache_meter.take()

    def _drop_empty(self) -> None:
        self._batches = {sampling: batch for sampling, batch in self._batches.items() if batch.busy}

    def _new_batch(self, sampling: SamplingConfig) -> RunningBatch:
        return RunningBatch(
            self.model,
            sampling,
            limits=self._limits,
            stop_ids=self._stop_ids,
            barred=self._barred,
            record_experts=self._record_experts,
            version=lambda: self._version,
            padding_stats=self._padding_stats,
            cache_meter=self._cache_meter,
        )


def open_transformers(spec: EngineSpec) -> TransformersEngine:
    """The engine of a worker, on its GPU where it has one."""
    model = family_at(spec.model_path).load_model(spec.model_path, dtype=getattr(torch, spec.dtype))
    torch.nn.Module.to(model, "cuda" if torch.cuda.is_available() else "cpu")
    return TransformersEngine(
        model,
        stop_ids=spec.stop_ids,
        barred_ids=spec.barred_ids,
        limits=BatchLimits(**spec.options),
        record_experts=spec.record_experts,
    )
