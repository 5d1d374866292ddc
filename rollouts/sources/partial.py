"""Partial rollouts (Kimi k1.5 §2.6.2): a completion gets a budget of tokens per step and continues in the next step.

An unfinished completion is kept as segments, each with its policy version and log-probs. In the next step the engine
reads it again under the new weights and continues. A group is finished when all its completions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from configs.rl import PartialConfig
from rollouts.types import Completion


def min_trainable_version(config: PartialConfig | None, version: int) -> int:
    """The oldest policy version whose tokens are trained on when `version` is updated."""
    return version - config.mask_age + 1 if config is not None and config.mask_age is not None else 0


class PartialBudget:
    """The token budget of each step, and counts of what it did in the current one.

    The last of `steps` has no budget, so that every group is finished at the end of the run.
    """

    def __init__(self, config: PartialConfig, *, steps: int) -> None:
        self._config, self._last_step = config, steps - 1
        self.begin_step()

    def begin_step(self) -> None:
        """Forget the counts of the step before."""
        self._finished: list[Completion] = []
        self._forced = self._old_tokens = 0

    def tokens(self, step: int) -> int | None:
        """New tokens that each completion may get in `step`; None for no bound."""
        return None if step == self._last_step else self._config.budget

    def end_long(self, completions: Sequence[Completion]) -> list[Completion]:
        """End unfinished completions of `max_segments` segments, as if they had reached the token limit."""
        return [self._bounded(completion) for completion in completions]

    def _bounded(self, completion: Completion) -> Completion:
        if completion.finish_reason != "abort" or _sampled_segments(completion) < self._config.max_segments:
            return completion
        self._forced += 1
        return replace(completion, finish_reason="length")

    def count(self, completions: Sequence[Completion], prefixes: Sequence[Completion]) -> None:
        """Count a group that finished in this step; `prefixes` are what earlier steps generated of it."""
        if completions:
            self._finished += completions
            self._old_tokens += sum(len(prefix.token_ids) for prefix in prefixes)

    def metrics(self, *, pending: int) -> dict[str, float]:
        """Of the step, after which `pending` groups continue; see docs/metrics.md."""
        metrics = {"partial/pending": float(pending), "partial/forced": float(self._forced)}
        if self._finished:
            tokens = sum(len(completion.token_ids) for completion in self._finished)
            metrics["partial/segments"] = float(np.mean([_sampled_segments(c) for c in self._finished]))
            metrics["partial/old_share"] = self._old_tokens / max(1, tokens)
        return metrics


def _sampled_segments(completion: Completion) -> int:
    return sum(segment.sampled for segment in completion.segments)
