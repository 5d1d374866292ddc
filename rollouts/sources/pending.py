"""The groups of a source between the choice of their task and the step that trains on them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rewards.types import Score
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Completion, Prompt, Request, Rollout, ScoredRollout


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingGroup:
    """A request for a group of completions that has not finished."""

    step: int  # that its task was chosen for
    version: int  # the policy version that was served when it was submitted
    request: Request

    @property
    def prompt(self) -> Prompt:
        """That of the request; its id is the group's."""
        return self.request.prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedGroup:
    """A group whose completions are all there; `scores` has one future for each rollout."""

    pending: PendingGroup
    rollouts: tuple[Rollout, ...]  # empty for a task in quarantine
    scores: tuple[Future[Score], ...]

    @property
    def prompt(self) -> Prompt:
        """That of all its rollouts."""
        return self.pending.prompt

    @property
    def tokens(self) -> int:
        """Number of response tokens in all rollouts."""
        return sum(len(r.completion.token_ids) for r in self.rollouts)

    @property
    def min_version(self) -> int:
        """The oldest policy version that sampled any of its tokens."""
        return min((s.version for r in self.rollouts for s in r.completion.segments), default=self.pending.version)

    def with_completions(self, completions: Sequence[Completion]) -> FinishedGroup | None:
        """The group with completions that were generated again; None where their tokens, and so the scores, differ."""
        if len(completions) != len(self.rollouts):  # a task that went to quarantine
            return None
        pairs = list(zip(self.rollouts, completions, strict=True))
        if not all(np.array_equal(r.completion.token_ids, c.token_ids) for r, c in pairs):
            return None
        return replace(self, rollouts=tuple(replace(r, completion=c) for r, c in pairs))

    def scored(self) -> tuple[ScoredRollout, ...]:
        """The scored rollouts. Waits for the verifiers, whose time is bounded."""
        return tuple(
            ScoredRollout(rollout=r, score=f.result()) for r, f in zip(self.rollouts, self.scores, strict=True)
        )


def group_state(pending: PendingGroup, finished: FinishedGroup | None) -> dict[str, Any]:
    """A group for a checkpoint. Prompts are rendered again from their tasks, because patches are large."""
    return {
        "id": pending.prompt.id,
        "task": pending.prompt.task,
        "step": pending.step,
        "version": pending.version,
        "n": pending.request.n,
        "seed": pending.request.seed,
        "prefixes": pending.request.prefixes,
        "finished": finished and [(m.rollout.completion, m.rollout.text, m.score) for m in finished.scored()],
    }


def pending_from(state: dict[str, Any], renderer: PromptRenderer) -> PendingGroup:
    """The group of `group_state`, as it was submitted."""
    prompt = replace(renderer.render(state["task"]), id=state["id"])
    request = Request(prompt=prompt, n=state["n"], seed=state["seed"], prefixes=tuple(state["prefixes"]))
    return PendingGroup(step=state["step"], version=state["version"], request=request)


def finished_from(pending: PendingGroup, rollouts: Sequence[tuple[Completion, str, Score]]) -> FinishedGroup:
    """The group of `group_state` with its rollouts."""
    return FinishedGroup(
        pending=pending,
        rollouts=tuple(
            Rollout(prompt=pending.prompt, index=i, completion=c, text=text) for i, (c, text, _) in enumerate(rollouts)
        ),
        scores=tuple(_done(score) for _, _, score in rollouts),
    )


def _done(score: Score) -> Future[Score]:
    future: Future[Score] = Future()
    future.set_result(score)
    return future
