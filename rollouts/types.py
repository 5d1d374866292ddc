"""The types that questions pass through on their way to scored answers; one frozen type a stage.

Shapes: T response tokens, L prompt tokens, P image patches, N images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from configs.schema import SamplingConfig
from rewards.types import Score, Task

FinishReason = Literal["stop", "length", "abort", "repeat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A task rendered for the model: token ids with the image placeholders already expanded, and the patches."""

    task: Task
    input_ids: np.ndarray  # [L] int64
    pixel_values: np.ndarray  # [P, 3, 14, 14] float32; P = 0 for a text-only prompt
    image_grid_hws: np.ndarray  # [N, 2] int64, in patches

    def __post_init__(self) -> None:
        patches = int(self.image_grid_hws.prod(-1).sum()) if len(self.image_grid_hws) else 0
        if patches != len(self.pixel_values):
            raise ValueError(f"task {self.task.id}: {len(self.pixel_values)} patches, but the grids say {patches}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`n` samples wanted for one prompt. Sample i draws from a stream that depends on `seed` and i alone."""

    prompt: Prompt
    n: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Tokens [start, stop) of a completion, written by policy `version`."""

    start: int
    stop: int
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine returns for one sample.

    Example: `Completion(token_ids=[5, 9], policy_logprobs=[-.1, -.7], sampler_logprobs=[-.1, -.7],
    finish_reason="stop", segments=(Segment(start=0, stop=2, version=3),))`.
    """

    token_ids: np.ndarray  # [T] int64, with the stop token if one was sampled
    policy_logprobs: np.ndarray  # [T] float32, under temperature and the barred-token mask
    sampler_logprobs: np.ndarray  # [T] float32, under top-p, top-k and min-p as well: what was really drawn from
    finish_reason: FinishReason
    segments: tuple[Segment, ...]

    def __post_init__(self) -> None:
        lengths = (len(self.token_ids), len(self.policy_logprobs), len(self.sampler_logprobs))
        if len(set(lengths)) != 1:
            raise ValueError(f"a completion's tokens and log-probs differ in length: {lengths}")
        borders = [0, *(s.stop for s in self.segments)]
        if [s.start for s in self.segments] != borders[:-1] or borders[-1] != lengths[0]:
            spans = [(s.start, s.stop) for s in self.segments]
            raise ValueError(f"segments {spans} do not cover {lengths[0]} tokens one after the other")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A completion with its prompt and its text."""

    prompt: Prompt
    completion: Completion
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """A rollout that a verifier has judged."""

    rollout: Rollout
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All scored rollouts of one prompt whose verdict is a reward; `dropped` counts those that left."""

    prompt: Prompt
    members: tuple[ScoredRollout, ...]
    dropped: int = 0

    @property
    def rewards(self) -> list[float]:
        """Reward of each member, in order."""
        return [m.score.reward for m in self.members if m.score.reward is not None]


class Engine(Protocol):
    """Turns requests into completions. Runs without Ray."""

    def generate(self, requests: Sequence[Request], sampling: SamplingConfig) -> list[list[Completion]]:
        """Return `request.n` completions for each request, in order."""
        ...

    def load_weights(self, weights: Mapping[str, Any], *, version: int) -> None:
        """Replace the weights in place and serve `version` from now on."""
        ...

    @property
    def version(self) -> int:
        """The policy version that the next token will come from."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...
