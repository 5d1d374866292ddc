"""`thinkvl chat`: streams the thinking (dimmed) and then the answer to a question about images."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.text import Text
from transformers.generation.streamers import BaseStreamer

from configs.errors import UserError
from configs.files import MAX_IMAGE_BYTES, read_bytes
from configs.rl import SamplingConfig
from configs.text import counted
from rewards.images import BadImage, decode_image
from rewards.types import Task
from rl.cli.chat_text import AnswerPrinter, TextStream
from rl.cli.open_model import find_model, open_model
from rl.run.console import PlainConsole
from rl.run.model_prompt import read_prompt
from rollouts.model_family import family_of
from rollouts.tasks.prompts import BadPrompt, PromptRenderer
from rollouts.tasks.templates import PromptTemplates
from rollouts.types import Prompt

_MAX_NEW_TOKENS = 4096  # of one answer, where the user sets no limit


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """Sampling options; temperature 0 is greedy, and `max_new_tokens` None is what fits the model, at most 4096."""

    temperature: float = 0.0
    max_new_tokens: int | None = None


def chat_command(
    name: str, *, images: Sequence[Path], question: str | None, options: ChatOptions, console: PlainConsole
) -> None:
    """Answer `question` about the images, or without one every line that is typed. Raises UserError."""
    try:
        SamplingConfig(temperature=options.temperature)
    except ValueError as error:
        raise UserError(f"--{error}") from error
    encoded = tuple(_read_image(path) for path in images)
    chat = Chat(name, encoded, options, console)
    if question is not None:
        chat.answer(question)
        return
    if console.is_terminal:
        console.print("Each question stands alone, about the same images; end with Ctrl-D.", style="dim")
    while True:
        try:
            question = console.input(Text("question> ", style="bold") if console.is_terminal else "")
        except EOFError:
            return
        if question.strip():
            chat.answer(question)


class Chat:
    """A loaded model and the images that every question is about."""

    def __init__(self, name: str, images: tuple[bytes, ...], options: ChatOptions, console: PlainConsole) -> None:
        self._images, self._options, self._console = images, options, console
        place = find_model(name)
        self._model, self._processor = open_model(place)
        torch.nn.Module.to(self._model, "cuda" if torch.cuda.is_available() else "cpu")
        self._stop, self._barred = family_of(self._model.config).stop_and_barred_ids(place.path, self._processor)
        self._room = self._model.config.text_config.max_position_embeddings
        reserved = options.max_new_tokens or 1
        if reserved >= self._room:
            raise UserError(
                f"--max-new-tokens {reserved}: the model has room for "
                f"{counted(self._room, 'token')} in all, question and images "
                "included; choose fewer"
            )
        self._renderer = PromptRenderer(
            self._processor,
            max_prompt_tokens=self._room - reserved,
            templates=PromptTemplates(prompt=read_prompt(place.path, place.run)),
        )

    def answer(self, question: str) -> None:
        """Print the answer to `question` as its tokens come."""
        prompt = self._prompt(question)
        printer = AnswerPrinter(self._console)
        stream = _Stream(TextStream(self._processor.tokenizer.decode), printer, self._stop)
        limit = self._options.max_new_tokens or min(_MAX_NEW_TOKENS, self._room - len(prompt.input_ids))
        began = time.monotonic()
        self._generate(prompt, limit, stream)
        printer.close()
        note = f"{counted(stream.count, 'token')} in {time.monotonic() - began:.1f} s"
        if not stream.stopped:
            note += f"; cut off there: --max-new-tokens allows more, the model has room for {self._room}"
        self._console.print(note, style="dim")

    def _prompt(self, question: str) -> Prompt:
        task = Task(id="question", source="chat", question=question, answer="", images=self._images)
        try:
            return self._renderer.render(task)
        except (BadPrompt, BadImage) as error:
            raise UserError(f"{error} (the model has room for {self._room}, answer included)") from error

    @torch.inference_mode()
    def _generate(self, prompt: Prompt, limit: int, stream: BaseStreamer) -> None:
        model: Any = self._model  # its `generate` is bound to a protocol that type checkers find no model to fulfil
        ids = torch.from_numpy(prompt.input_ids)[None].to(model.device)
        vision: dict[str, torch.Tensor] = {}
        if len(prompt.patches):
            vision["pixel_values"] = torch.from_numpy(prompt.pixel_values).to(model.device, model.dtype)
            vision["image_grid_hws"] = torch.from_numpy(prompt.image_grid_hws).to(model.device)
        sampling: dict[str, Any] = {"do_sample": False}
        if self._options.temperature > 0:
            sampling = {"do_sample": True, "temperature": self._options.temperature, "top_k": 0, "top_p": 1.0}
        model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            **vision,
            **sampling,
            max_new_tokens=limit,
            eos_token_id=self._stop,
            pad_token_id=self._processor.tokenizer.pad_token_id,
            suppress_tokens=self._barred,
            streamer=stream,
        )


class _Stream(BaseStreamer):
    """Receives the tokens of `generate`: first the prompt, then one token at a time."""

    def __init__(self, text: TextStream, printer: AnswerPrinter, stop_ids: Sequence[int]) -> None:
        self._text, self._printer, self._stop_ids = text, printer, set(stop_ids)
        self._prompt_seen = False
        self.count, self.stopped = 0, False

    def put(self, value: torch.Tensor) -> None:
        """Print the text of the tokens in `value`; the first call, the prompt, prints nothing."""
        if not self._prompt_seen:
            self._prompt_seen = True
            return
        for token in value.reshape(-1).tolist():
            self.count += 1
            if token in self._stop_ids:
                self.stopped = True
            else:
                self._printer.feed(self._text.add(token))

    def end(self) -> None:
        """Print the rest, also where its last character is incomplete."""
        self._printer.feed(self._text.finish())


def _read_image(path: Path) -> bytes:
    try:
        data = read_bytes(path.expanduser(), limit=MAX_IMAGE_BYTES)
    except OSError as error:
        raise UserError(f"--image {path}: cannot be read ({error.strerror})") from error
    try:
        decode_image(data)
    except BadImage as error:
        raise UserError(f"--image {path}: {error}") from error
    return data
