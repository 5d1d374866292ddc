"""How the work of one learner is spread over processes: an object that the learner is given.

`SingleProcess` keeps everything in this process; `rl.distributed.sharded.Sharded` shards the models over several.
Every process has a `Learner` of its own. All call the same methods with the same arguments, and get the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import nn

from configs.optimizer import OptimizerConfig
from rl.learner.batch import ImageSet, Packable, collect_images
from rl.learner.logprobs import token_logprobs
from rl.learner.lora import Cast, as_it_is, merged_weights
from rl.learner.micro_batch_threads import split_for_threads
from rl.learner.optimizer import build_optimizer
from rl.types import DummySample
from rollouts.model_family import VisionLanguageConfig, VisionLanguageModel

T = TypeVar("T")

# Waits until a learner's checkpoint is written, in any thread. Returns the state that is left to write: all of it, or
# None where it lies in the folder as shards.
FinishCheckpoint: TypeAlias = Callable[[], dict[str, Any] | None]


class Parallel(Protocol):
    """What a learner leaves to the object that spreads its work. All processes must call each method together."""

    @property
    def threads(self) -> int:
        """How many micro-batches of this process run at a time, each in a thread of its own."""
        ...

    def shard_model(self, model: VisionLanguageModel) -> None:
        """Keep this process's shard of a model, in place. Optimizers are built afterwards."""
        ...

    def shard_head(self, head: nn.Module) -> None:
        """Keep this process's shard of a small module, such as the critic's head, in place."""
        ...

    def build_optimizer(self, model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
        """The optimizer of a recipe, over the trainable parameters of a model that went through `shard_model`."""
        ...

    def plan(
        self, samples: Sequence[Packable], config: VisionLanguageConfig, *, budget: int, dummy: DummySample
    ) -> tuple[Sequence[Sequence[Any]], ImageSet | None]:
        """The micro-batches of `samples` that this process runs, and their images; headers are replaced by samples.

        A micro-batch has at most `budget` packed tokens, but at least one sample. `[dummy]` is a micro-batch that only
        keeps this process in step with the others. `config` is the model's. The micro-batches that run at a time
        share the budget.
        """
        ...

    def whole(self, samples: Sequence[Packable]) -> Sequence[Any]:
        """The samples themselves, where headers stand for them."""
        ...

    def before_backward(self, *, last: bool) -> None:
        """Called before each micro-batch of a step, and for each part of its images, with whether it is the last."""
        ...

    def token_logprobs(
        self,
        model: VisionLanguageModel,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        barred: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`rl.learner.logprobs.token_logprobs` with the vocabulary head of `model`."""
        ...

    def exchange(self, value: T) -> list[T]:
        """The value of each process, in one order everywhere."""
        ...

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """A nested state dict with whole tensors; in all processes but the first, None stands for each tensor."""
        ...

    def merged_weights(self, model: nn.Module, cast: Cast = as_it_is) -> Iterator[tuple[str, torch.Tensor]]:
        """The whole weights one by one, adapters merged and then cast, in the first process; nothing in the others.

        Every process must exhaust the iterator.
        """
        ...

    def on_first(self, write: Callable[[], object]) -> None:
        """Call `write` in the first process; the others go on."""
        ...

    def write_checkpoint(self, folder: Path, state: dict[str, Any]) -> FinishCheckpoint:
        """Copy the learner's state to CPU memory, and begin to write it where this process writes its own part."""
        ...

    def read_checkpoint(
        self, folder: Path, state: dict[str, Any] | None, optimizer: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """This process's part of what `write_checkpoint` kept; `optimizer` is the one that will load its own part."""
        ...


class SingleProcess:
    """One process holds the whole models and runs every micro-batch, up to `threads` at a time.

    Where they are several, PyTorch's own threads should be one: see `rl.learner.micro_batch_threads`.
    """

    def __init__(self, threads: int = 1) -> None:
        self._threads = threads

    @property
    def threads(self) -> int:
        """The threads that it was given."""
        return self._threads

    def shard_model(self, model: VisionLanguageModel) -> None:
        """Leave the model whole."""

    def shard_head(self, head: nn.Module) -> None:
        """Leave the module whole."""

    def build_optimizer(self, model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
        """See `rl.learner.optimizer.build_optimizer`."""
        return build_optimizer(model, config)

    def plan(
        self, samples: Sequence[Packable], config: VisionLanguageConfig, *, budget: int, dummy: DummySample
    ) -> tuple[Sequence[Sequence[Any]], ImageSet | None]:
        """All micro-batches and all images."""
        parts = split_for_threads(samples, budget=budget, threads=self._threads)
        return parts, collect_images(self.whole(samples), config, budget=budget)

    def whole(self, samples: Sequence[Packable]) -> Sequence[Any]:
        """The samples as they are."""
        return samples

    def before_backward(self, *, last: bool) -> None:
        """Nothing to prepare."""

    def token_logprobs(
        self,
        model: VisionLanguageModel,
        hidden: torch.Tensor,
        targets: torch.Tensor,
        *,
        temperature: float,
        barred: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """See `rl.learner.logprobs.token_logprobs`."""
        targets = targets.to(hidden.device)
        return token_logprobs(hidden, model.lm_head.weight, targets, temperature=temperature, barred=barred)

    def exchange(self, value: T) -> list[T]:
        """The value alone."""
        return [value]

    def gather(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state as it is: tensors are not copied."""
        return state

    def merged_weights(self, model: nn.Module, cast: Cast = as_it_is) -> Iterator[tuple[str, torch.Tensor]]:
        """See `rl.learner.lora.merged_weights`."""
        return merged_weights(model, cast)

    def on_first(self, write: Callable[[], object]) -> None:
        """Call `write`."""
        write()

    def write_checkpoint(self, folder: Path, state: dict[str, Any]) -> FinishCheckpoint:
        """A copy of the state; nothing is written."""
        copied = staged_copy(state)
        return lambda: copied

    def read_checkpoint(
        self, folder: Path, state: dict[str, Any] | None, optimizer: torch.optim.Optimizer
    ) -> dict[str, Any]:
        """The state. Shards in `folder` are for several processes."""
        assert state is not None, f"{folder} holds shards, which only rl.distributed reads"
        return state


def staged_copy(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples with every tensor on the CPU; what else they hold is never changed."""
    if isinstance(value, dict):
        return {key: staged_copy(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(staged_copy(inner) for inner in value)
    if isinstance(value, torch.Tensor):
        return value.detach().clone() if value.device.type == "cpu" else value.detach().cpu()
    return value


SINGLE_PROCESS = SingleProcess()
