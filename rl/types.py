"""What the learner consumes: `Sample` -> `StepBatch` -> `MicroBatch`.

A forward pass alone needs no advantage: it packs a `SampledCompletion`, or in SFT a plain `PromptCompletion`.

Shapes: B sequences, P packed tokens (prompts and responses), T response tokens of one sequence, N response tokens of
the micro-batch that are trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch

from rl.learner.packed_attention import PackedSegment
from rollouts.types import Prompt

COLUMNS = ("token_advantages", "reference_logprobs", "engine_logprobs", "sampler_logprobs", "old_values", "returns")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOutputs:
    """What the learner says of one response before its advantages are known, `[T]` float32 at the iteration's start.

    None is what the recipe's algorithm does not use.
    """

    policy_logprobs: np.ndarray | None = None  # the learner's own: the ratio's denominator
    reference_logprobs: np.ndarray | None = None
    values: np.ndarray | None = None  # the critic's, before each token

    def spread(self, mask: np.ndarray) -> ModelOutputs:
        """The same of a response whose tokens in `mask` `[T]` these are; the others have 0."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return ModelOutputs(**{name: c if c is None else spread(c, mask) for name, c in columns.items()})


def spread(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Numbers of the tokens in `mask` at their places `[T]`; 0 at the others."""
    if len(values) == len(mask):
        return values
    column = np.zeros(len(mask), values.dtype)
    column[mask] = values
    return column


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCompletion:
    """A prompt and a completion of it, to be packed into a row; those with one `prompt.id` share the prompt."""

    id: str  # that of its rollout
    prompt: Prompt
    token_ids: np.ndarray  # [T] int64
    mask: np.ndarray | None = None  # [T] bool, the trainable tokens; None: all. The others are context
    experts: np.ndarray | None = None  # [T, M, k] as the engine recorded them, to be used again: `routed_experts`

    @property
    def trainable(self) -> np.ndarray:
        """`[T]` bool, the tokens that a loss is computed on."""
        return np.ones(len(self.token_ids), dtype=bool) if self.mask is None else self.mask

    @property
    def trainable_tokens(self) -> int:
        """How many tokens a loss is computed on."""
        return int(self.trainable.sum())

    @property
    def response_tokens(self) -> int:
        """Tokens of the response, context included."""
        return len(self.token_ids)

    def __len__(self) -> int:
        """Tokens of prompt and response together."""
        return self.prompt.tokens + self.response_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledCompletion(PromptCompletion):
    """A completion that was sampled: what the models read before its advantage is known."""

    old_logprobs: np.ndarray  # [T] float32 of the policy at the iteration's start: the ratio's denominator

    def __post_init__(self) -> None:
        if len(self.token_ids) != len(self.old_logprobs):
            raise ValueError(f"{len(self.token_ids)} tokens but {len(self.old_logprobs)} log-probs")
        if len(self.trainable) != len(self.token_ids):
            raise ValueError(f"a mask of {len(self.trainable)} for {len(self.token_ids)} tokens")
        if self.trainable_tokens == 0:
            raise ValueError("a sample needs at least one response token to learn from")
        if self.experts is not None and len(self.experts) != len(self.token_ids):
            raise ValueError(f"{len(self.token_ids)} tokens but experts of {len(self.experts)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(SampledCompletion):
    """One completion that RL trains on.

    `old_logprobs` are the learner's own where the outputs before the update hold them. `engine_logprobs` are then a
    column. Elsewhere `old_logprobs` are the engine's, and the iteration's only update does not read them.
    """

    advantage: float
    sft_mask: bool = False  # the supervised term copies it
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)  # [T] float32 each; some of COLUMNS, by recipe

    def __post_init__(self) -> None:
        SampledCompletion.__post_init__(self)
        for name, column in self.columns.items():
            if name not in COLUMNS or len(column) != len(self.token_ids):
                raise ValueError(f"column {name} of {len(column)} for {len(self.token_ids)} tokens; known: {COLUMNS}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DummySample(SampledCompletion):
    """A micro-batch of its own that counts for nothing: it runs where another process has one more than this one.

    Every process of a sharded model must run as many forward and backward passes as the others.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptHeader:
    """The sizes of a prompt, and references to the prompt and to its samples of a step."""

    id: str
    tokens: int
    image_grid_hws: np.ndarray  # [N, 2] int64, in patches
    prompt_ref: Any
    samples_ref: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleHeader:
    """What the plan of a step reads of a sample: where the sample itself is elsewhere, this stands for it."""

    id: str
    prompt: PromptHeader
    response_tokens: int
    trainable_tokens: int
    sft_mask: bool

    def __len__(self) -> int:
        """Tokens of prompt and response together."""
        return self.prompt.tokens + self.response_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class StepBatch:
    """All samples of one optimizer step; its counts are the loss's denominators, whatever the micro-batches."""

    samples: tuple[Sample | SampleHeader, ...]
    # The iteration's first update: the policy has not moved, and its log-probs in this very pass are the denominator.
    # A pass before the update is packed otherwise, and rounds otherwise in bfloat16.
    first: bool = False

    @property
    def sequences(self) -> int:
        """Number of responses in the step."""
        return len(self.samples)

    @property
    def tokens(self) -> int:
        """Number of response tokens in the step that are trained on."""
        return sum(s.trainable_tokens for s in self.samples)

    @property
    def sft_tokens(self) -> int:
        """Number of response tokens in the step that the supervised term copies."""
        return sum(s.trainable_tokens for s in self.samples if s.sft_mask)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedRow:
    """Prompts and responses of one forward pass in one row without padding, and where the response tokens are.

    Masked tokens are read, as context, and no more: they are not among the N.
    """

    input_ids: torch.Tensor  # [P]
    position_ids: torch.Tensor  # [P], counted from the start of each token's own sequence
    segments: tuple[PackedSegment, ...]  # which packed tokens see which
    feature_index: torch.Tensor  # rows of the step's image features, in the order of the placeholders
    predictors: torch.Tensor  # [N] packed positions that predict the response tokens
    targets: torch.Tensor  # [N] the response tokens
    lengths: torch.Tensor  # [B] of the N, those of each sequence
    sequence_ids: torch.Tensor  # [N] which of the B sequences a response token belongs to
    experts: torch.Tensor | None  # [P, M, k] to be used again, -1 where the router chooses; None: it always does


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatch(PackedRow):
    """A packed row of samples, with what the losses read."""

    old_logprobs: torch.Tensor  # [N]
    advantages: torch.Tensor  # [B]
    sft_mask: torch.Tensor  # [B] bool
    columns: Mapping[str, torch.Tensor]  # [N] each; those of the samples
