"""What stages need of a learner, in this process (`Learner`, `SupervisedLearner`) or on ranks (`LearnerGroup`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rl.learner.parallel import FinishCheckpoint
from rl.types import ModelOutputs, PromptCompletion, Sample
from rollouts.resource_use import ProcessUse
from rollouts.types import Group
from rollouts.weight_stream import WeightStream


class ModelProtocol(Protocol):
    """A model in training. `rl.learner.base.BaseLearner` documents each method."""

    @property
    def version(self) -> int:
        """Number of updates so far: the version of the weights."""
        ...

    def resource_use(self) -> list[ProcessUse]:
        """Device and peak memory of each process of the learner."""
        ...

    def weight_stream(self, dtype: str | None = None) -> WeightStream:
        """The policy's weights for engines, adapters merged, in `dtype`; exhaust it before the next call."""
        ...

    def save(self, folder: Path) -> None:
        """Write the policy, adapters merged, as a model folder."""
        ...

    def save_adapters(self, folder: Path) -> None:
        """Write the adapters alone, if there are any."""
        ...

    def write_checkpoint(self, folder: Path) -> FinishCheckpoint:
        """Copy the state, begin to write it as shards into `folder` on several ranks, and return what waits for it."""
        ...

    def read_checkpoint(self, folder: Path, state: dict[str, Any] | None) -> None:
        """Restore what `write_checkpoint` kept."""
        ...

    def close(self) -> None:
        """End the processes of the learner."""
        ...


class LearnerProtocol(ModelProtocol, Protocol):
    """Trains the policy in RL. `rl.learner.learner.Learner` documents each method."""

    def model_outputs(self, groups: Sequence[Group], min_version: int = 0) -> list[list[ModelOutputs]]:
        """Log-probs and values before the update, one entry per rollout of each group."""
        ...

    def logprobs(self, completions: Sequence[PromptCompletion]) -> list[np.ndarray]:
        """The policy's log-probs of each completion's trainable tokens."""
        ...

    def update(self, samples: Sequence[Sample], /) -> dict[str, float]:
        """One iteration over the samples. Returns metrics by name."""
        ...


class SupervisedProtocol(ModelProtocol, Protocol):
    """Trains a model on examples. `rl.learner.supervised_learner.SupervisedLearner` documents each method."""

    def update(self, examples: Sequence[PromptCompletion], /) -> dict[str, float]:
        """One optimizer step on the examples. Returns metrics by name."""
        ...
