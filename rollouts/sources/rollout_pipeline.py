"""What turns prompts into scored rollouts: the renderer, the engines, the tokenizer and the scorer as one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from configs.rl import SamplingConfig
from rewards.scorer import Scorer
from rewards.types import Score, Task
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Completion, Prompt, Request, Rollout, ScoredRollout

if TYPE_CHECKING:  # it imports Ray
    from rollouts.workers.render_tasks import RenderTasks

Generate = Callable[[Sequence[Request], SamplingConfig], list[list[Completion]]]
Decode = Callable[[np.ndarray], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutPipeline:
    """Task -> prompt -> completions -> scored rollouts. Training and evaluation use the same one.

    `generate` returns the completions of each request in order, and none for a task in quarantine.
    `decode` returns the text of response tokens without special tokens. Without `render_tasks` all prompts are rendered
    in this process.
    """

    renderer: PromptRenderer
    generate: Generate
    decode: Decode
    scorer: Scorer
    render_tasks: RenderTasks | None = None

    def render_large(self, tasks: Sequence[Task]) -> Mapping[int, Prompt | str]:
        """The prompts with large images by place, and why others cannot be rendered; from other processes.

        It leaves this process's tokenizer alone.
        """
        return self.render_tasks.render(tasks) if self.render_tasks is not None else {}

    def render(self, tasks: Sequence[Task], large: Mapping[int, Prompt | str]) -> tuple[list[Prompt], dict[str, int]]:
        """The prompts in order, and how many tasks cannot be rendered, by reason; `large` is from `render_large`."""
        return self.renderer.render_all(tasks, large)

    def rollouts(self, prompt: Prompt, completions: Sequence[Completion]) -> list[Rollout]:
        """Completions of one prompt with their texts."""
        return [
            Rollout(prompt=prompt, index=i, completion=c, text=self.decode(c.token_ids))
            for i, c in enumerate(completions)
        ]

    def begin_scoring(self, rollouts: Sequence[Rollout]) -> list[Future[Score]]:
        """Start to score the rollouts of one prompt; verifiers work while the caller goes on."""
        return self.scorer.submit([r.text for r in rollouts], rollouts[0].prompt.task) if rollouts else []

    def generate_and_score(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, *, n: int, seed: int
    ) -> list[list[ScoredRollout]]:
        """`n` scored rollouts of each prompt in order; none for a task in quarantine.

        Sample i of prompt j depends on (seed, j, i) alone.
        """
        requests = make_requests(prompts, n=n, seed=seed)
        return self.score(prompts, self.generate(requests, sampling))

    def score(
        self, prompts: Sequence[Prompt], completions: Sequence[Sequence[Completion]]
    ) -> list[list[ScoredRollout]]:
        """The completions of each prompt as scored rollouts."""
        groups = [self.rollouts(p, own) for p, own in zip(prompts, completions, strict=True)]
        rollouts = [r for group in groups for r in group]
        scores = iter(self.scorer.score([r.text for r in rollouts], [r.prompt.task for r in rollouts]))
        return [[ScoredRollout(rollout=r, score=next(scores)) for r in group] for group in groups]


def make_requests(prompts: Sequence[Prompt], *, n: int, seed: int) -> list[Request]:
    """A request for `n` samples of each prompt."""
    return [Request(prompt=p, n=n, seed=request_seed(seed, j)) for j, p in enumerate(prompts)]


def request_seed(seed: int, index: int) -> int:
    """A 64-bit seed of request `index` in the stream `seed`."""
    return int(np.random.SeedSequence([seed & (2**64 - 1), index]).generate_state(1, np.uint64)[0])
