"""The types that questions pass through on their way to scored answers; one frozen type a stage.

Shapes: T response tokens, L prompt tokens, P image patches, N images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rewards.types import Score, Task

FinishReason = Literal["stop", "length", "abort", "repeat"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A task rendered for the model: token ids with the image placeholders already expanded, and the patches.

    `id` is that of its group. Rollouts and samples are joined by it, so it must be unique among the prompts of a step.
    """

    id: str
    task: Task
    input_ids: np.ndarray  # [L] int64
    pixel_values: np.ndarray  # [P, channels, height, width] float32; P = 0 for a text-only prompt
    image_grid_hws: np.ndarray  # [N, 2] int64, in patches

    def __post_init__(self) -> None:
        patches = int(self.image_grid_hws.prod(-1).sum()) if len(self.image_grid_hws) else 0
        if patches != len(self.pixel_values):
            raise ValueError(f"task {self.task.id}: {len(self.pixel_values)} patches, but the grids say {patches}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Tokens [start, stop) of a completion, written by policy `version`.

    Where `sampled` is False they were inserted by somebody else (a forced end of thinking) and must not be trained on.
    """

    start: int
    stop: int
    version: int
    sampled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What an engine returns for one sample.

    Example: `Completion(token_ids=[5, 9], policy_logprobs=[-.1, -.7], sampler_logprobs=[-.1, -.7],
    finish_reason="stop", segments=(Segment(start=0, stop=2, version=3),))`.
    """

    token_ids: np.ndarray  # [T] int64, with the stop token if one was sampled
    policy_logprobs: np.ndarray  # [T] float32, under temperature and the barred-token mask; 0 where inserted
    sampler_logprobs: np.ndarray  # [T] float32, under top-p, top-k and min-p as well: what was really drawn from
    finish_reason: FinishReason
    segments: tuple[Segment, ...]
    # [T, M, k] uint8 or uint16, where it was asked for: in each of the M mixture-of-experts layers, the k experts of
    # the input that predicted token t (the prompt's last token for t = 0); the dtype's maximum where not recorded.
    routed_experts: np.ndarray | None = None

    def __post_init__(self) -> None:
        lengths = (len(self.token_ids), len(self.policy_logprobs), len(self.sampler_logprobs))
        if len(set(lengths)) != 1:
            raise ValueError(f"a completion's tokens and log-probs differ in length: {lengths}")
        if self.routed_experts is not None and len(self.routed_experts) != lengths[0]:
            raise ValueError(f"routes of {len(self.routed_experts)} tokens, but the completion has {lengths[0]}")
        borders = [0, *(s.stop for s in self.segments)]
        if [s.start for s in self.segments] != borders[:-1] or borders[-1] != lengths[0]:
            spans = [(s.start, s.stop) for s in self.segments]
            raise ValueError(f"segments {spans} do not cover {lengths[0]} tokens one after the other")

    @property
    def sampled_mask(self) -> np.ndarray:
        """`[T]` bool, False where tokens were inserted: those must never be trained on."""
        mask = np.ones(len(self.token_ids), dtype=bool)
        for segment in self.segments:
            mask[segment.start : segment.stop] = segment.sampled
        return mask

    def mask_from(self, min_version: int) -> np.ndarray:
        """`[T]` bool, the sampled tokens that a policy of version `min_version` or later wrote."""
        mask = self.sampled_mask
        for segment in self.segments:
            if segment.version < min_version:
                mask[segment.start : segment.stop] = False
        return mask

    @property
    def cut_off(self) -> bool:
        """True if the model had more to say: the limit of tokens came first, or an abort."""
        return self.finish_reason in ("length", "abort")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`n` samples wanted for one prompt. Token t of sample i is drawn with a number that depends on (seed, i, t) alone.

    `written`, one for each sample, are answers to go on from: those whose finish reason is `abort` are continued after
    their tokens, the others come back as they are. `budget` is how many new tokens a sample may get in this call before
    it comes back with `abort`; the sampling's `max_new_tokens` counts all of an answer's tokens.
    """

    prompt: Prompt
    n: int
    seed: int
    written: tuple[Completion, ...] = ()
    budget: int | None = None

    def __post_init__(self) -> None:
        if self.n < 1 or (self.budget is not None and self.budget < 1):
            raise ValueError(f"n = {self.n}, budget = {self.budget}: both must be 1 or more (budget may be None)")
        if len(self.written) not in (0, self.n):
            raise ValueError(
                f"{len(self.written)} answers to go on from, but n = {self.n}: one for each sample, or none"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """A completion with its prompt and its text; `index` is its place among the completions of the prompt."""

    prompt: Prompt
    index: int
    completion: Completion
    text: str

    @property
    def id(self) -> str:
        """Unique in the step: the group's id and the place in the group."""
        return f"{self.prompt.id}/{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredRollout:
    """A rollout that a verifier has judged."""

    rollout: Rollout
    score: Score


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """All scored rollouts of one prompt whose verdict is a reward; `dropped` counts those that left."""

    prompt: Prompt
    rollouts: tuple[ScoredRollout, ...]
    dropped: int = 0

    @property
    def id(self) -> str:
        """That of its prompt."""
        return self.prompt.id

    @property
    def rewards(self) -> list[float]:
        """Reward of each member, in order."""
        return [m.score.reward for m in self.rollouts if m.score.reward is not None]
