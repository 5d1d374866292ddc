"""The examples of each supervised step: drawn, rendered, and ready for the learner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from configs.errors import UserError
from configs.supervised import SFTConfig, SupervisedConfig
from rewards.images import BadImage
from rewards.types import Task
from rl.run.document_rendering import DocumentRenderer
from rl.types import PromptCompletion
from rollouts.tasks.documents import Document, Example
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.prompts import BadPrompt, PromptRenderer, target_text

_HOPELESS = 256  # examples of which none can be rendered: then it is not single bad rows


class ExampleRenderer:
    """Tasks and documents to prompts with the completions that a stage trains on. `skipped` counts what is left out.

    A task without a solution trains the bare answer.
    """

    def __init__(self, renderer: PromptRenderer, config: SupervisedConfig) -> None:
        self._renderer, self._max_tokens = renderer, config.max_tokens
        self._documents = DocumentRenderer(renderer.processor, max_tokens=config.max_tokens)
        self._thinking_share = config.thinking_share if isinstance(config, SFTConfig) else 1.0
        self._rendered = 0
        self.skipped: Counter[str] = Counter()

    def render(self, examples: list[Example], rng: np.random.Generator) -> list[PromptCompletion]:
        """The examples that can be rendered, in order; `rng` chooses which of them think.

        Raises UserError once it is clear that no example at all can be rendered.
        """
        thinking = rng.random(len(examples)) < self._thinking_share
        rendered: list[PromptCompletion] = []
        for example, thinks in zip(examples, thinking, strict=True):
            try:
                rendered += self._one(example, thinking=bool(thinks))
            except (BadPrompt, BadImage) as error:
                self.skipped[error.reason] += 1
        self._rendered += len(rendered)
        tried = sum(self.skipped.values())
        if not self._rendered and tried >= _HOPELESS:
            raise UserError(f"none of the first {tried} examples can be rendered: {dict(self.skipped)}")
        return rendered

    def _one(self, example: Example, *, thinking: bool) -> list[PromptCompletion]:
        if isinstance(example, Document):
            return self._documents.render(example)
        prompt = self._renderer.render(example)
        completion = PromptCompletion(id=example.id, prompt=prompt, token_ids=self.target(example, thinking=thinking))
        if len(completion) > self._max_tokens:
            raise BadPrompt(f"example longer than {self._max_tokens} tokens", f"task {example.id}")
        return [completion]

    def target(self, task: Task, *, thinking: bool) -> np.ndarray:
        """The token ids `[T]` of the completion that is trained, the end of the turn included."""
        processor = self._renderer.processor
        text = target_text(task, thinking=thinking and task.solution is not None) + processor.turn_end
        return np.array(processor.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)


class ExampleBatches:
    """The examples of the steps of a stage, each rendered while the step before it is trained on.

    What a step gets depends on the mixture, `seed` and the step alone.
    """

    def __init__(
        self, mixture: Mixture[Example], renderer: ExampleRenderer, config: SupervisedConfig, *, seed: int
    ) -> None:
        self._mixture, self._renderer, self._config, self._seed = mixture, renderer, config, seed

    def batch(self, step: int) -> list[PromptCompletion]:
        """The examples of `step`, counted from 0. Ids are unique in a batch."""
        examples = self._mixture.draw(step, self._config.batch_size)
        rendered = self._renderer.render(examples, np.random.default_rng([self._seed, 1, step]))
        return [_renamed(example, f"{step + 1}.{number}") for number, example in enumerate(rendered)]

    def from_step(self, start: int) -> Iterator[list[PromptCompletion]]:
        """The batches of all steps from `start` on."""
        with ThreadPoolExecutor(max_workers=1) as thread:
            upcoming = thread.submit(self.batch, start) if start < self._config.steps else None
            for step in range(start, self._config.steps):
                assert upcoming is not None
                batch = upcoming.result()
                upcoming = thread.submit(self.batch, step + 1) if step + 1 < self._config.steps else None
                yield batch


def _renamed(example: PromptCompletion, name: str) -> PromptCompletion:
    """The same example under another id: a step may have a task twice."""
    return replace(example, id=name, prompt=replace(example.prompt, id=name))
