"""`thinkvl chat`: images and a question in; the thinking (dimmed), then the answer, as the tokens come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers.generation.streamers import BaseStreamer

from kimi_vl import KimiVLProcessor
from rewards.types import Task
from rl.chat import AnswerPrinter, TextStream
from rl.commands.models import find_model, open_model
from rl.errors import UserError
from rollouts.prompts import BadPrompt, PromptRenderer
from rollouts.tasks.images import BadImage, decode_image
from rollouts.tokens import stop_and_barred_ids
from rollouts.types import Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """How answers are drawn; temperature 0 is greedy."""

    temperature: float = 0.0
    max_new_tokens: int = 1024


def chat_command(
    name: str, *, images: Sequence[Path], question: str | None, options: ChatOptions, console: Console
) -> None:
    """Answer `question`, or every line that is typed, about the images. Raises UserError."""
    encoded = tuple(_read_image(path) for path in images)
    chat = Chat(name, encoded, options, console)
    if question is not None:
        chat.answer(question)
        return
    if console.is_terminal:
        console.print("Each question is asked anew about the same images; end with Ctrl-D.", style="dim")
    while True:
        try:
            asked = console.input("[bold]question>[/] " if console.is_terminal else "")
        except EOFError:
            return
        if asked.strip():
            chat.answer(asked)


class Chat:
    """A loaded model and the images that every question is about."""

    def __init__(self, name: str, images: tuple[bytes, ...], options: ChatOptions, console: Console) -> None:
        self._images, self._options, self._console = images, options, console
        place = find_model(name)
        self._model, self._processor = open_model(place)
        torch.nn.Module.to(self._model, "cuda" if torch.cuda.is_available() else "cpu")
        self._stop, self._barred = stop_and_barred_ids(place.path, self._processor)
        limit = self._model.config.text_config.max_position_embeddings
        self._renderer = PromptRenderer(self._processor, max_prompt_tokens=limit - options.max_new_tokens)
        if limit <= options.max_new_tokens:
            raise UserError(
                f"--max-new-tokens {options.max_new_tokens}: the model has room for {limit} tokens in all, question "
                "and images included; ask for fewer"
            )

    def answer(self, question: str) -> None:
        """Print the answer to `question` as its tokens come."""
        prompt = self._prompt(question)
        printer = AnswerPrinter(self._console)
        stream = _Stream(TextStream(self._processor.tokenizer.decode), printer, self._stop)
        began = time.monotonic()
        _generate(self._model, self._processor, prompt, self._stop, self._barred, self._options, stream)
        printer.close()
        note = f"{stream.count} tokens in {time.monotonic() - began:.1f} s"
        if stream.count >= self._options.max_new_tokens and not stream.stopped:
            note += "; cut off there: ask for more with --max-new-tokens"
        self._console.print(note, style="dim", highlight=False)

    def _prompt(self, question: str) -> Prompt:
        task = Task(id="question", source="chat", question=question, answer="", images=self._images)
        try:
            return self._renderer.render(task)
        except (BadPrompt, BadImage) as error:
            raise UserError(f"{error}; the answer may take {self._options.max_new_tokens} tokens more") from error


class _Stream(BaseStreamer):
    """What `generate` hands its tokens to: the prompt first, then one token at a time."""

    def __init__(self, text: TextStream, printer: AnswerPrinter, stop_ids: Sequence[int]) -> None:
        self._text, self._printer, self._stop_ids = text, printer, set(stop_ids)
        self._prompt_seen = False
        self.count, self.stopped = 0, False

    def put(self, value: torch.Tensor) -> None:
        """Print what `value` adds to the text."""
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
        """Print what waits for bytes that will not come."""
        self._printer.feed(self._text.finish())


@torch.inference_mode()
def _generate(
    model: Any,  # its `generate` is bound to a protocol that type checkers find no model to fulfil
    processor: KimiVLProcessor,
    prompt: Prompt,
    stop_ids: Sequence[int],
    barred_ids: Sequence[int],
    options: ChatOptions,
    stream: BaseStreamer,
) -> None:
    ids = torch.from_numpy(prompt.input_ids)[None].to(model.device)
    vision: dict[str, torch.Tensor] = {}
    if len(prompt.pixel_values):
        vision["pixel_values"] = torch.from_numpy(prompt.pixel_values).to(model.device, model.dtype)
        vision["image_grid_hws"] = torch.from_numpy(prompt.image_grid_hws).to(model.device)
    sampling: dict[str, Any] = {"do_sample": False}
    if options.temperature > 0:
        sampling = {"do_sample": True, "temperature": options.temperature, "top_k": 0, "top_p": 1.0}
    model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        **vision,
        **sampling,
        max_new_tokens=options.max_new_tokens,
        eos_token_id=list(stop_ids),
        pad_token_id=processor.tokenizer.pad_token_id,
        suppress_tokens=list(barred_ids),
        streamer=stream,
    )


def _read_image(path: Path) -> bytes:
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise UserError(f"--image {path}: cannot be read ({error.strerror})") from error
    try:
        decode_image(data)
    except BadImage as error:
        raise UserError(f"--image {path}: {error}; give a PNG, JPEG or another picture that Pillow reads") from error
    return data
