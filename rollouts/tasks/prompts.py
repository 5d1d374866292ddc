"""Tasks to prompts: the chat template, the image placeholders and the patches, made by the model's own processor.

Shapes: L prompt tokens, P image patches, N images.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from configs.data import DataConfig
from configs.errors import UserError
from configs.prompt import IMAGE_MARK, PromptConfig
from configs.text import counted
from rewards.extraction import THINK_CLOSE, THINK_OPEN
from rewards.images import BadImage, decode_image
from rewards.types import Task
from rewards.verifiers.accepted_answers import accepted_answers
from rollouts.patches import Patches
from rollouts.tasks.templates import PromptTemplates
from rollouts.types import Prompt

if TYPE_CHECKING:
    from rollouts.model_family import VisionLanguageProcessor

_PLAIN = PromptConfig()
_NO_GRIDS = np.zeros((0, 2), np.int64)
_NONE: Mapping[int, Prompt | str] = MappingProxyType({})


class BadPrompt(ValueError):
    """A task that cannot be rendered; `reason` is short and the same for all tasks with this fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{detail}: {reason}")
        self.reason = reason


class PromptTooLong(BadPrompt):
    """A prompt of more tokens than `data.max_prompt_tokens`."""


def messages(task: Task, prompt: PromptConfig = _PLAIN) -> list[dict[str, Any]]:
    """What the chat template takes: the system text, if there is one, and the user's turn.

    Images come in front, or where the question says `<image>`.
    """
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    images = [{"type": "image"} for _ in task.images]
    user = prompt.apply(task.question)
    texts = user.split(IMAGE_MARK) if images else [user]
    if len(texts) != len(images) + 1:
        return [*system, {"role": "user", "content": [*images, {"type": "text", "text": user}]}]
    content: list[dict[str, Any]] = []
    for text, image in itertools.zip_longest(texts, images):
        content += [{"type": "text", "text": text.strip("\n")}] if text.strip() else []
        content += [image] if image else []
    return [*system, {"role": "user", "content": content}]


def target_text(task: Task, *, thinking: bool) -> str:
    """The completion that SFT trains on: the answer alone, or the solution in a think block and then the answer.

    Of several accepted answers it is the first.
    """
    answer = (accepted_answers(task.answer) or [task.answer])[0]
    return f"{THINK_OPEN}{task.solution}{THINK_CLOSE}{answer}" if thinking else answer


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedText:
    """A text with its images, as the model reads them."""

    input_ids: np.ndarray  # [L] int64
    patches: Patches
    grids: np.ndarray  # [N, 2] int64


def encode(processor: VisionLanguageProcessor, images: Sequence[Any], text: str) -> EncodedText:
    """Run the processor on one text. Patches stay 8-bit levels if it has them. Raises ValueError as it does."""
    levels = processor.level_values
    kwargs = {} if levels is None else {"images_kwargs": {"do_normalize": False}}
    found = processor(images=list(images) or None, text=text, return_tensors="np", **kwargs)
    none = np.zeros((0, *processor.patch_shape), np.float32 if levels is None else np.uint8)
    pixels = np.asarray(found.get("pixel_values", none), none.dtype)
    return EncodedText(
        input_ids=np.asarray(found["input_ids"], dtype=np.int64).reshape(-1),
        patches=Patches(pixels, levels),
        grids=np.asarray(found.get("image_grid_hws", _NO_GRIDS), np.int64),
    )


class PromptRenderer:
    """Renders tasks with one processor, the same for SFT, RL, evaluation and chat.

    `max_prompt_tokens` counts everything before the answer, image tokens included. `templates` hold the system texts
    and the texts around questions; without them a question stands alone. Raises UserError where one of them holds a
    special token.
    """

    def __init__(
        self,
        processor: VisionLanguageProcessor,
        *,
        max_prompt_tokens: int,
        templates: PromptTemplates | None = None,
    ) -> None:
        self.processor, self.max_prompt_tokens = processor, max_prompt_tokens
        self.templates = templates or PromptTemplates()
        special = [token.content for token in processor.tokenizer.added_tokens_decoder.values() if token.special]
        self._control = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        for place, text in self.templates.texts():
            if control := self._control.search(text):
                raise UserError(f"{place}: holds the control token {control[0]!r}; leave it out")

    @classmethod
    def from_config(cls, processor: VisionLanguageProcessor, data: DataConfig) -> PromptRenderer:
        """The renderer that a recipe's `data` section describes. Raises UserError for a verifier that is unknown."""
        return cls(processor, max_prompt_tokens=data.max_prompt_tokens, templates=PromptTemplates.from_config(data))

    def render(self, task: Task) -> Prompt:
        """Return the prompt with the assistant's turn opened. Its id is the task's.

        Raises PromptTooLong, BadImage (from `rewards.images`), or BadPrompt for a question that holds the image
        placeholder or another special token: as text it would open a turn, or end one.
        """
        if self.processor.image_token in task.question:
            raise BadPrompt("image placeholder in the question", f"task {task.id}")
        if self._control.search(task.question):
            raise BadPrompt("control token in the question", f"task {task.id}")
        prompt = self.templates.of(task)
        if self._control.search(prompt.apply("") + (prompt.system or "")):
            raise BadPrompt("control token in the prompt of the source", f"task {task.id}")
        images = [decode_image(data) for data in task.images]
        text = self.processor.apply_chat_template(messages(task, prompt), add_generation_prompt=True, tokenize=False)
        try:
            encoded = encode(self.processor, images, text)
        except ValueError as error:
            if not images:
                raise
            raise BadImage("image does not fit the model", str(error)) from error
        input_ids = encoded.input_ids
        if len(input_ids) > self.max_prompt_tokens:
            raise PromptTooLong(
                f"prompt longer than {counted(self.max_prompt_tokens, 'token')}",
                f"task {task.id}: {counted(len(input_ids), 'token')}",
            )
        return Prompt(
            id=task.id,
            task=task,
            input_ids=input_ids,
            patches=encoded.patches,
            image_grid_hws=encoded.grids,
        )

    def render_or_refuse(self, task: Task) -> Prompt | str:
        """The prompt, or why the task is left out: the `reason` of what `render` raises."""
        try:
            return self.render(task)
        except (BadPrompt, BadImage) as error:
            return error.reason

    def render_all(
        self, tasks: Iterable[Task], rendered: Mapping[int, Prompt | str] = _NONE
    ) -> tuple[list[Prompt], dict[str, int]]:
        """Return the prompts in order, and how many tasks were left out for each reason.

        `rendered` has what `render_or_refuse` returned elsewhere for some of the tasks, by their place.
        """
        prompts: list[Prompt] = []
        skipped: Counter[str] = Counter()
        for place, task in enumerate(tasks):
            found = rendered[place] if place in rendered else self.render_or_refuse(task)
            if isinstance(found, str):
                skipped[found] += 1
            else:
                prompts.append(found)
        return prompts, dict(skipped)
