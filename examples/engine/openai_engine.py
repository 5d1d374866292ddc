"""An engine in one file: any server with OpenAI's completions API that takes token ids and returns log-probs.

vLLM and SGLang servers do (`return_tokens_as_token_ids`). The server's weights are fixed, so this engine evaluates
models and makes demonstrations; a run refuses it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any
from urllib import request as http

import numpy as np

from configs.rl import SamplingConfig
from rollouts.engines.engine_spec import EngineSpec
from rollouts.engines.protocol import Engine, FinishedGroup
from rollouts.types import Completion, Request, Segment

_POLL_SECONDS = 0.2  # the longest step: requests are added and cancelled between steps
_SEEDS = 1_000_003  # more than a request has samples, so that no two samples share a seed


class OpenAIEngine(Engine):
    """Requests each sample from a server. `connections` samples are in flight at once."""

    fixed_weights = True

    def __init__(self, spec: EngineSpec, *, url: str, model: str, connections: int = 16, timeout: float = 600) -> None:
        self._url, self._model, self._stop_ids, self._timeout = url, model, list(spec.stop_ids), timeout
        self._threads = ThreadPoolExecutor(connections)
        self._running: dict[int, list[Future[Completion]]] = {}  # one for each sample, by index of the request

    @property
    def version(self) -> int:
        """Always 0: the weights are fixed."""
        return 0

    def start_load(self, shapes: Any) -> None:
        """Raise ValueError: the server keeps its weights."""
        raise ValueError(f"{self._url} serves fixed weights and cannot load others; use another engine")

    load_weights = finish_load = start_load  # pyright: ignore[reportAssignmentType]

    def add(self, index: int, request: Request, sampling: SamplingConfig) -> None:
        """Send the samples of a request. Raises ValueError for what the API cannot express."""
        if len(request.prompt.pixel_values) or request.prefixes or request.budget:
            raise ValueError("OpenAIEngine takes prompts of text alone, without a prefix or a budget")
        if sampling.temperature not in (0.0, 1.0) or sampling.top_p != 1 or sampling.top_k or sampling.min_p:
            raise ValueError(f"{sampling}: a server's log-probs are those of temperature 1 (or 0) without any filter")
        if sampling.repeat_window:
            raise ValueError("a server does not stop repetitions; set sampling.repeat_window to 0")
        self._running[index] = [self._threads.submit(self._sample, request, i, sampling) for i in range(request.n)]

    def step(self) -> list[FinishedGroup]:
        """Wait a moment for the next sample, and return the groups that are complete. Raises what a call raised."""
        pending = [future for futures in self._running.values() for future in futures if not future.done()]
        wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
        done = [index for index, futures in self._running.items() if all(future.done() for future in futures)]
        return [(index, [future.result() for future in self._running.pop(index)]) for index in done]

    def cancel(self, indices: Iterable[int]) -> list[FinishedGroup]:
        """Return these groups; samples that the server has not returned yet are empty."""
        nothing = _completion([], [], "abort", greedy=False)
        cancelled = {index: self._running.pop(index) for index in list(indices) if index in self._running}
        return [
            (index, [f.result() if not f.cancel() and f.done() and not f.exception() else nothing for f in futures])
            for index, futures in cancelled.items()
        ]

    def _sample(self, request: Request, sample: int, sampling: SamplingConfig) -> Completion:
        body = {
            "model": self._model,
            "prompt": request.prompt.input_ids.tolist(),
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "seed": (request.seed * _SEEDS + sample) % 2**63,
            "stop_token_ids": self._stop_ids,
            "logprobs": 0,
            "return_tokens_as_token_ids": True,  # tokens come as "token_id:123"
        }
        data, header = json.dumps(body).encode(), {"Content-Type": "application/json"}
        with http.urlopen(http.Request(f"{self._url}/completions", data, header), timeout=self._timeout) as reply:
            choice = json.load(reply)["choices"][0]
        found, tokens = choice["logprobs"], [int(t.removeprefix("token_id:")) for t in choice["logprobs"]["tokens"]]
        return _completion(tokens, found["token_logprobs"], choice["finish_reason"], greedy=not sampling.temperature)


def _completion(tokens: list[int], logprobs: list[float], reason: Any, *, greedy: bool) -> Completion:
    policy = np.array(logprobs, dtype=np.float32)
    return Completion(
        token_ids=np.array(tokens, dtype=np.int64),
        policy_logprobs=policy,
        sampler_logprobs=np.zeros_like(policy) if greedy else policy,
        finish_reason=reason,
        segments=(Segment(start=0, stop=len(tokens), version=0),) if tokens else (),
    )
