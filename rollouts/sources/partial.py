"""Partial rollouts (Kimi k1.5 §2.6.2): an answer gets a budget of tokens a step, and goes on in the next one.

What is unfinished is aborted and kept as segments, each with its version and log-probs. In the next step the engine
reads it again under the new weights and goes on. A group is done when all its answers are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from configs.rl import PartialConfig, SamplingConfig
from rollouts.sources.requests import Generate
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Completion, Request


def oldest_trainable(config: PartialConfig | None, version: int) -> int:
    """The oldest policy version whose tokens are learnt from when `version` is updated."""
    return version - config.mask_age + 1 if config is not None and config.mask_age is not None else 0


class PartialRollouts:
    """The groups that are not done, between the steps of a run; `steps` is how many the run has.

    The last step has no budget, so that every group is done at the end.
    """

    def __init__(self, config: PartialConfig, generate: Generate, *, steps: int) -> None:
        self._config, self._generate, self._last = config, generate, steps - 1
        self._pending: list[Request] = []
        self._step = -1
        self._forget_counts()

    def _forget_counts(self) -> None:
        self._done: list[Completion] = []
        self._forced = self._old_tokens = 0

    def __len__(self) -> int:
        """How many groups are not done."""
        return len(self._pending)

    def ask(
        self, requests: Sequence[Request], sampling: SamplingConfig, *, step: int
    ) -> tuple[list[Request], list[list[Completion]]]:
        """Ask `requests`, and at a step's first call all that is pending before them.

        Returns the requests of the groups that are done, with their answers; none for a task in quarantine.
        """
        going_on: list[Request] = []
        if step != self._step:
            going_on, self._pending, self._step = self._pending, [], step
            self._forget_counts()
        budget = None if step == self._last else self._config.budget
        asked = [replace(request, budget=budget) for request in (*going_on, *requests)]
        done: list[Request] = []
        answers: list[list[Completion]] = []
        for request, found in zip(asked, self._generate(asked, sampling), strict=True):
            written = [self._bounded(completion) for completion in found]
            if any(completion.finish_reason == "abort" for completion in written):
                self._pending.append(replace(request, written=tuple(written)))
                continue
            done.append(request)
            answers.append(written)
            if written:
                self._done += written
                self._old_tokens += sum(len(before.token_ids) for before in request.written)
        return done, answers

    def _bounded(self, answer: Completion) -> Completion:
        """An unfinished answer of so many segments is as one that reached the limit of tokens."""
        if answer.finish_reason != "abort" or _segments(answer) < self._config.max_segments:
            return answer
        self._forced += 1
        return replace(answer, finish_reason="length")

    def metrics(self) -> dict[str, float]:
        """Of the step; see docs/metrics.md."""
        metrics = {"partial/pending": float(len(self)), "partial/forced": float(self._forced)}
        if self._done:
            tokens = sum(len(answer.token_ids) for answer in self._done)
            metrics["partial/segments"] = float(np.mean([_segments(answer) for answer in self._done]))
            metrics["partial/old_share"] = self._old_tokens / max(1, tokens)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Everything that `load_state_dict` needs to go on exactly; prompts are kept as their tasks."""
        return {
            "pending": [
                {"task": r.prompt.task, "n": r.n, "seed": r.seed, "written": list(r.written)} for r in self._pending
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any], renderer: PromptRenderer) -> None:
        """Restore `state_dict()`; the prompts are rendered anew."""
        rows = state["pending"]
        prompts, _ = renderer.render_all([row["task"] for row in rows])
        self._pending = [
            Request(prompt=prompt, n=row["n"], seed=row["seed"], written=tuple(row["written"]))
            for prompt, row in zip(prompts, rows, strict=True)
        ]
        self._step = -1


def _segments(answer: Completion) -> int:
    return sum(segment.sampled for segment in answer.segments)
