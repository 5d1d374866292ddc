"""Samples from a chat server with OpenAI's API, such as vLLM or SGLang. Images are sent as data URIs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from configs.data import DataConfig
from configs.errors import UserError
from configs.text import shorten
from rewards.images import BadImage
from rewards.types import Task
from rewards.verifiers.judge_client import ChatEndpoint, JudgeFailed, JudgeTimeout
from rl.curation.generators import Draft, Drawing
from rl.run.benchmarks.answerers import chat_messages, response_text
from rollouts.tasks.templates import PromptTemplates

_CHARACTERS = 4  # of a token, where a server does not count them
FAILED = "the server failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """An endpoint, and the model's name there."""

    url: str  # such as http://127.0.0.1:8000/v1
    model: str
    key_env: str | None = None  # the environment variable that holds the key
    connections: int = 16  # samples that are drawn at once
    seconds: float = 600.0  # limit of one attempt

    def __post_init__(self) -> None:
        """Raise UserError for an address with a password, because every row of the output names the server."""
        if "@" in self.url.partition("://")[2].partition("/")[0]:
            raise UserError("--server: leave user and password out of the address; --key-env NAME sends a key")


class ServerGenerator:
    """Draws each sample with its own request. It is an error if every request of a call fails."""

    def __init__(self, options: ServerOptions, data: DataConfig) -> None:
        key = os.environ.get(options.key_env) if options.key_env else None
        if options.key_env and not key:
            raise UserError(f"--key-env {options.key_env}: this environment variable is not set")
        try:
            self._endpoint = ChatEndpoint(options.url, key=key, seconds=options.seconds, concurrent=options.connections)
        except ValueError as error:
            raise UserError(f"--server: {error}") from error
        self._options, self._templates = options, PromptTemplates.from_config(data)

    def generate(self, tasks: Sequence[Task], seeds: Sequence[int], drawing: Drawing) -> list[list[Draft] | str]:
        """See `Generator.generate`. Raises UserError if every request of the call fails."""
        errors: list[str] = []
        with ThreadPoolExecutor(self._options.connections) as threads:
            jobs = []
            for task, seed in zip(tasks, seeds, strict=True):
                try:
                    prompt = self._templates.of(replace(task, template=drawing.direct or task.template))
                    turns = chat_messages(task, prompt)
                except BadImage as error:
                    jobs.append(error.reason)
                    continue
                bodies = [self._body(turns, (seed + i) % 2**31, drawing) for i in range(drawing.n)]
                jobs.append([threads.submit(self._draft, body, errors) for body in bodies])
            drawn = [own if isinstance(own, str) else [future.result() for future in own] for own in jobs]
        found = [own if isinstance(own, str) else [draft for draft in own if draft is not None] for own in drawn]
        if errors and not any(own for own in found if not isinstance(own, str)):
            raise UserError(f"{self._options.url}: no request was answered: {shorten(errors[0])}")
        return [own or FAILED for own in found]

    def _draft(self, body: dict[str, Any], errors: list[str]) -> Draft | None:
        try:
            reply = self._endpoint.reply(body)
        except (JudgeFailed, JudgeTimeout) as error:
            errors.append(str(error))
            return None
        choice, usage = reply["choices"][0], reply.get("usage")
        message, reason = choice["message"], choice.get("finish_reason")
        thought = message.get("reasoning_content") or message.get("reasoning")
        text = response_text(thought, message.get("content"), cut_off=reason == "length")
        tokens = usage.get("completion_tokens") if isinstance(usage, Mapping) else None
        return Draft(
            text=text,
            tokens=tokens if isinstance(tokens, int) else -(-len(text) // _CHARACTERS),
            finish_reason=reason if isinstance(reason, str) else "stop",
        )

    def _body(self, turns: list[dict[str, Any]], seed: int, drawing: Drawing) -> dict[str, Any]:
        sampling = drawing.sampling
        return {
            "model": self._options.model,
            "messages": turns,
            "max_tokens": sampling.max_new_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "seed": seed,
        }
