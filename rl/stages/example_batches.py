"""The examples of each supervised step: drawn, rendered, and ready for the learner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np

from configs.errors import UserError
from configs.supervised import SFTConfig, SupervisedConfig
from configs.text import counted
from rewards.images import BadImage
from rewards.types import Task
from rl.run.document_rendering import DocumentRenderer
from rl.stages.prefetch import prefetched
from rl.types import PromptCompletion
from rollouts.tasks.documents import Document, Example
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.prompts import BadPrompt, PromptRenderer, target_text

_HOPELESS = 256  # examples of which none can be rendered: then it is not single bad rows


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedExamples:
    """The examples that could be rendered, in order, and how many were left out for each reason."""

    examples: list[PromptCompletion]
    skipped: Counter[str] = field(default_factory=Counter)


class ExampleRenderer:
    """Tasks and documents to prompts with the completions that a stage trains on.

    A task without a solution trains the bare answer.
    """

    def __init__(self, renderer: PromptRenderer, config: SupervisedConfig) -> None:
        self._renderer, self._max_tokens = renderer, config.max_tokens
        self._documents = DocumentRenderer(renderer.processor, max_tokens=config.max_tokens)
        self._thinking_share = config.thinking_share if isinstance(config, SFTConfig) else 1.0

    def render(self, examples: list[Example], rng: np.random.Generator) -> RenderedExamples:
        """Render the examples; `rng` chooses which of them think."""
        thinking = rng.random(len(examples)) < self._thinking_share
        found = RenderedExamples(examples=[])
        for example, thinks in zip(examples, thinking, strict=True):
            try:
                found.examples.extend(self._one(example, thinking=bool(thinks)))
            except (BadPrompt, BadImage) as error:
                found.skipped[error.reason] += 1
        return found

    def _one(self, example: Example, *, thinking: bool) -> list[PromptCompletion]:
        if isinstance(example, Document):
            return self._documents.render(example)
        prompt = self._renderer.render(example)
        completion = PromptCompletion(id=example.id, prompt=prompt, token_ids=self.target(example, thinking=thinking))
        if len(completion) > self._max_tokens:
            raise BadPrompt(f"example longer than {counted(self._max_tokens, 'token')}", f"task {example.id}")
        return [completion]

    def target(self, task: Task, *, thinking: bool) -> np.ndarray:
        """The token ids `[T]` of the completion that is trained, the end of the turn included."""
        processor = self._renderer.processor
        text = target_text(task, thinking=thinking and task.solution is not None) + processor.turn_end
        return np.array(processor.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int64)


class ExampleBatches:
    """The examples of the steps of a stage, rendered ahead of the step; `skipped` counts what was left out so far.

    What a step gets depends on the mixture, `seed` and the step alone.
    """

    def __init__(
        self, mixture: Mixture[Example], renderer: ExampleRenderer, config: SupervisedConfig, *, seed: int
    ) -> None:
        self._mixture, self._renderer, self._config, self._seed = mixture, renderer, config, seed
        self.skipped: Counter[str] = Counter()

    def batch(self, step: int) -> RenderedExamples:
        """The examples of `step`, counted from 0. Ids are unique in a batch."""
        examples = self._mixture.draw(step, self._config.batch_size)
        found = self._renderer.render(examples, np.random.default_rng([self._seed, 1, step]))
        named = [_renamed(example, f"{step + 1}.{number}") for number, example in enumerate(found.examples)]
        return replace(found, examples=named)

    def from_step(self, start: int, *, say: Callable[[str], object]) -> Generator[list[PromptCompletion]]:
        """The batches of all steps from `start` on. Close the iterator to end its processes.

        `say` gets a line for a process that died. Raises UserError once it is clear that no example can be rendered.
        """
        rendered, steps = 0, range(start, self._config.steps)
        with closing(prefetched(self.batch, steps, stage=self._config.name, say=say)) as upcoming:
            for found in upcoming:
                rendered += len(found.examples)
                self.skipped.update(found.skipped)
                tried = self.skipped.total()
                if not rendered and tried >= _HOPELESS:
                    raise UserError(
                        f"none of the first {counted(tried, 'example')} can be rendered: {dict(self.skipped)}"
                    )
                yield found.examples


def _renamed(example: PromptCompletion, name: str) -> PromptCompletion:
    """The same example under another id: a step may have a task twice."""
    return replace(example, id=name, prompt=replace(example.prompt, id=name))
