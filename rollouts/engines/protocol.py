"""What an engine must implement. `rollouts.engines.driver.EngineDriver` builds everything else on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import ClassVar, Protocol, runtime_checkable

import torch

from configs.errors import UserError
from configs.rl import SamplingConfig
from rollouts.resource_use import CacheUse
from rollouts.types import Completion, Request
from rollouts.weight_stream import Shapes

FinishedGroup = tuple[int, list[Completion]]  # the index under which a request was added, and its `n` completions


class EngineError(UserError, ValueError):
    """The chosen engine cannot run here, or not with this model; the message says what to do."""


class Engine(ABC):
    """Generates completions with one model. A new engine implements the seven abstract members and nothing else.

    The driver calls the methods from one thread at a time, so an engine needs no locks. New weights come in buckets:
    `start_load`, `load_weights` for each bucket, `finish_load`; nothing else is called in between.
    Every request that is added is returned exactly once, by `step` or by `cancel`.
    """

    fixed_weights: ClassVar[bool] = False  # True: `start_load` always refuses, so the engine cannot serve a run

    @abstractmethod
    def add(self, index: int, request: Request, sampling: SamplingConfig) -> None:
        """Accept a request. `index` is unique in the life of the engine.

        Raises ValueError, before anything is accepted, if the engine cannot serve the request.
        """

    @abstractmethod
    def step(self) -> list[FinishedGroup]:
        """Advance the running samples by one step, and return the groups that have finished.

        A step should be short: between two steps, requests are added and weights are loaded.
        """

    @abstractmethod
    def cancel(self, indices: Iterable[int]) -> list[FinishedGroup]:
        """End these requests now and return their groups; unknown indices are ignored.

        Unfinished samples keep the tokens they have and get the finish reason `abort`.
        """

    @abstractmethod
    def start_load(self, shapes: Shapes) -> None:
        """Prepare for new weights, named as in the state dict of our model.

        Raises ValueError, before anything is changed, if names or shapes do not fit.
        """

    @abstractmethod
    def load_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Replace some of the weights. The tensors are valid during the call only, and must not be written to."""

    @abstractmethod
    def finish_load(self, version: int) -> None:
        """Serve `version` from the next token on: every tensor has been replaced."""

    @property
    @abstractmethod
    def version(self) -> int:
        """The policy version that the next token will come from."""

    @property
    def progress(self) -> int:
        """A number that grows during a long `step`. It may stay 0 where steps are short: the driver counts steps."""
        return 0

    def sleep(self) -> None:  # noqa: B027 - an engine may keep its memory
        """Free the memory of weights and KV cache for the learner (`rl.colocate`). No request is running."""

    def wake(self) -> None:  # noqa: B027
        """Undo `sleep`, except for the weights: `load_weights` follows before anything is generated."""

    def close(self) -> None:  # noqa: B027 - most engines have nothing to free
        """Free what the engine holds."""

    def take_padding_stats(self) -> Counter[str]:
        """Positions that the model has `computed` since the last call, and the `padded` ones among them."""
        return Counter()

    def take_cache_use(self) -> CacheUse:
        """What the cache did since the last call; an engine that does not know reports nothing."""
        return CacheUse()


@runtime_checkable
class SharesWeights(Protocol):
    """An engine that can serve from memory which it shares with others, and needs no copy of the weights."""

    def share_weights(self, weights: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Like `load_weights`, with tensors that stay valid until they are replaced. Returns what it now holds."""
        ...


@runtime_checkable
class ReadableWeights(Protocol):
    """An engine that can read its weights back, so that a weight sync proves what it really serves."""

    def served_weights(self) -> Mapping[str, torch.Tensor]:
        """Every tensor by its state-dict name, without a copy where it can be."""
        ...
