"""Answers the questions of a benchmark with an engine in this process."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from configs.rl import SamplingConfig
from rewards.images import BadImage
from rl.run.benchmarks.answerers import Answer, Refusal
from rollouts.engines.driver import EngineDriver
from rollouts.sources.rollout_pipeline import request_seed
from rollouts.tasks.benchmarks.layout import Item
from rollouts.tasks.prompts import BadPrompt, PromptRenderer
from rollouts.types import Prompt, Request

_BLOCK = 32  # prompts whose pixels are in memory at once


class EngineAnswerer:
    """Generates with an engine. Each question has its own seed, so that a resumed evaluation gives the same answers."""

    def __init__(
        self,
        engine: EngineDriver,
        renderer: PromptRenderer,
        decode: Callable[[np.ndarray], str],
        *,
        sampling: SamplingConfig,
        seed: int,
    ) -> None:
        self._engine, self._renderer, self._decode = engine, renderer, decode
        self._sampling, self._seed = sampling, seed

    def answers(self, items: Iterable[Item]) -> Iterator[tuple[Item, Answer | Refusal]]:
        """The responses of each block of questions as they are finished."""
        for block in _batched(items, _BLOCK):
            prompts: list[tuple[Item, Prompt]] = []
            for item in block:
                try:
                    prompts.append((item, self._renderer.render(item.task)))
                except (BadPrompt, BadImage) as error:
                    yield item, Refusal(reason=error.reason)
            requests = [Request(prompt=p, n=1, seed=request_seed(self._seed, item.number)) for item, p in prompts]
            for index, group in self._engine.stream(requests, self._sampling):
                completion = group[0]
                answer = Answer(
                    text=self._decode(completion.token_ids),
                    tokens=len(completion.token_ids),
                    cut_off=completion.cut_off,
                )
                yield prompts[index][0], answer

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()


def _batched(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """`itertools.batched`, which Python 3.11 lacks."""
    waiting = iter(items)
    while block := tuple(itertools.islice(waiting, size)):
        yield block
