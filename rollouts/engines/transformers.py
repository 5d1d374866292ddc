"""The embedded engine: our own model in process, continuous batching, prompt and image encoded once per group."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count

import numpy as np
import torch

from configs.rl import SamplingConfig
from rollouts.engines.fair_lock import FairLock
from rollouts.engines.heartbeat import Heartbeat
from rollouts.engines.running_batch import BatchLimits, RunningBatch
from rollouts.engines.running_samples import Group
from rollouts.engines.sampling import barred_token_mask
from rollouts.model_family import VisionLanguageModel
from rollouts.request_queue import RequestQueue
from rollouts.types import Completion, Request
from rollouts.weight_checksums import checksums


class TransformersEngine:
    """Generates with a model in this process.

    A sample's tokens depend on its prompt, the weights, the request's seed and its index; what else is in the batch
    can change the last bits of a logit (matrix products of another shape), and nothing more.
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
        self._aborts = 0
        self.tally: Counter[str] = Counter()  # `computed` places of prompts and answers, `padded` among them
        self._turn = FairLock()
        self._life = Heartbeat(self.model)

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

    def stream(
        self, requests: Sequence[Request] | RequestQueue, sampling: SamplingConfig
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield (index of the request, its completions) as requests finish; work is done while the caller asks.

        What is put into an inbox meanwhile joins the batch at its next step; the stream ends when that is closed.
        """
        inbox = requests if isinstance(requests, RequestQueue) else RequestQueue(requests)
        aborts, numbers = self._aborts, count()
        while (news := inbox.take(wait=True)) is not None:
            batch = self._new_batch(sampling)  # a fresh one each time that all is answered: nothing of it is left over
            while True:
                groups: list[Group]
                aborted = aborts != self._aborts
                with self._turn.taken(), torch.inference_mode():
                    if news is not None:
                        batch.add((next(numbers), request) for request in news.requests)
                        batch.cancel(news.cancelled)
                    groups = batch.abort() if aborted else batch.step()
                for group in groups:
                    yield group.index, group.completions()
                if aborted:
                    return
                if not batch.busy:
                    break
                news = inbox.take(wait=False)

    def _new_batch(self, sampling: SamplingConfig) -> RunningBatch:
        return RunningBatch(
            self.model,
            sampling,
            limits=self._limits,
            stop_ids=self._stop_ids,
            barred=self._barred,
            record_experts=self._record_experts,
            version=lambda: self._version,
            tally=self.tally,
        )
