"""Answers the questions of a benchmark with any server that has OpenAI's chat completions."""

from __future__ import annotations

import base64
import io
import itertools
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from PIL import Image

from configs.prompt import PromptConfig
from configs.rl import SamplingConfig
from rewards.extraction import THINK_CLOSE, THINK_OPEN
from rewards.images import decode_image, open_image
from rewards.types import Task
from rewards.verifiers.judge_client import ChatEndpoint, JudgeFailed, JudgeTimeout
from rollouts.sources.rollout_pipeline import request_seed
from rollouts.tasks.benchmarks.layout import Item
from rollouts.tasks.prompts import messages

_READ_BY_SERVERS = ("PNG", "JPEG", "WEBP", "GIF")
_MOST_FAILURES = 8  # in a row: the server is away


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response; `tokens` is None if the server does not report it."""

    text: str
    tokens: int | None
    cut_off: bool  # the limit of tokens came first


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a question has no response, such as a prompt that is too long."""

    reason: str
    detail: str = ""


class ServerFailed(RuntimeError):
    """Many requests in a row failed; the message is the last error."""


class Answerer(Protocol):
    """Answers questions in any order, each once."""

    def answers(self, items: Iterable[Item]) -> Iterator[tuple[Item, Answer | Refusal]]:
        """The response to each item, as it is ready."""
        ...

    def close(self) -> None:
        """Release its resources."""
        ...


class ServerAnswerer:
    """Generates with a server's chat completions; images are sent as data URIs, `connections` requests at a time.

    A message's `reasoning_content` is put in front of its text as thinking. A request that fails is a refusal, and
    `_MOST_FAILURES` in a row raise ServerFailed.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None,
        sampling: SamplingConfig,
        seed: int,
        prompt: PromptConfig,
        connections: int,
        seconds: float,
    ) -> None:
        self._endpoint = ChatEndpoint(url, key=key, seconds=seconds, concurrent=connections)
        self._model, self._sampling, self._seed, self._prompt = model, sampling, seed, prompt
        self._connections = connections

    def answers(self, items: Iterable[Item]) -> Iterator[tuple[Item, Answer | Refusal]]:
        """The responses as they arrive."""
        waiting, arrived = iter(items), queue.SimpleQueue[tuple[Item, Answer | Refusal | Exception]]()
        running = failures = 0
        while True:
            for item in itertools.islice(waiting, self._connections - running):
                # A daemon, so that Ctrl-C does not wait for a long response.
                threading.Thread(target=self._put, args=(item, arrived), daemon=True).start()
                running += 1
            if not running:
                return
            item, answer = arrived.get()
            running -= 1
            if isinstance(answer, Exception):
                raise answer
            failures = failures + 1 if isinstance(answer, Refusal) else 0
            if failures == _MOST_FAILURES and isinstance(answer, Refusal):
                raise ServerFailed(answer.detail)
            yield item, answer

    def close(self) -> None:
        """Does nothing: open requests end with the process."""

    def _put(self, item: Item, arrived: queue.SimpleQueue[tuple[Item, Answer | Refusal | Exception]]) -> None:
        try:
            arrived.put((item, self._answer(item)))
        except Exception as error:  # raised again by `answers`
            arrived.put((item, error))

    def _answer(self, item: Item) -> Answer | Refusal:
        request = {
            "model": self._model,
            "messages": chat_messages(item.task, self._prompt),
            "max_tokens": self._sampling.max_new_tokens,
            "temperature": self._sampling.temperature,
            "seed": request_seed(self._seed, item.number) % 2**31,
        }
        try:
            reply = self._endpoint.reply(request)
        except (JudgeFailed, JudgeTimeout) as error:
            return Refusal(reason="the server gave no answer", detail=str(error))
        choice = reply["choices"][0]
        thought, text = choice["message"].get("reasoning_content"), choice["message"].get("content")
        usage = reply.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
        cut_off = choice.get("finish_reason") == "length"
        return Answer(
            text=response_text(thought, text, cut_off=cut_off),
            tokens=tokens if isinstance(tokens, int) else None,
            cut_off=cut_off,
        )


def chat_messages(task: Task, prompt: PromptConfig) -> list[dict[str, Any]]:
    """The messages of `rollouts.tasks.prompts.messages` in OpenAI's format, with the images in them."""
    images = iter(task.images)
    made = messages(replace(task, system=None, template=None), prompt)
    for message in made:
        if isinstance(message["content"], list):
            message["content"] = [
                {"type": "image_url", "image_url": {"url": _data_uri(next(images))}}
                if part["type"] == "image"
                else part
                for part in message["content"]
            ]
    return made


def _data_uri(image: bytes) -> str:
    """The image as it is, or as PNG where servers may not read its format. Raises BadImage."""
    kind = open_image(image).format
    if kind not in _READ_BY_SERVERS:
        buffer = io.BytesIO()
        decode_image(image).convert("RGBA").save(buffer, "PNG")
        image, kind = buffer.getvalue(), "PNG"
    return f"data:{Image.MIME[kind]};base64,{base64.b64encode(image).decode()}"


def response_text(thought: Any, text: Any, *, cut_off: bool) -> str:
    """Thinking and answer as one response; thinking that was cut off stays open."""
    text = text if isinstance(text, str) else ""
    if not isinstance(thought, str) or not thought:
        return text
    return f"{THINK_OPEN}{thought}" if cut_off and not text else f"{THINK_OPEN}{thought}{THINK_CLOSE}{text}"
