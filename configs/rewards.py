"""The terms of a reward, and the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from configs.rules import CLOSED, check


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """One term of the reward: `verifier` (the task's own), `format`, or the name of a plug-in.

    The keys from `in_process` on say how a plug-in runs; those of a term `verifier` are for the plug-ins that tasks
    name as their verifier.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CLOSED

    use: str = "verifier"
    weight: float = 1.0
    only_for: tuple[str, ...] = ()  # verifiers of tasks; empty: for every task
    in_process: bool = False
    workers: int | None = None  # processes; one a core when left out
    seconds: float = 10.0  # of one call
    memory_mb: int = 2048  # of address space of each process
    env: tuple[str, ...] = ()  # names of environment variables
    imports: tuple[str, ...] = ()  # modules to import before the first call

    def __post_init__(self) -> None:
        check(self.weight != 0, "weight", self.weight, "anything but 0: leave the term out instead")
        check(self.workers is None or self.workers > 0, "workers", self.workers, "1 or more, or left out")
        check(self.seconds > 0, "seconds", self.seconds, "greater than 0")
        check(self.memory_mb >= 64, "memory_mb", self.memory_mb, "64 or more")
        unread = [key for key in ("workers", "env") if getattr(self, key)] if self.in_process else []
        check(not unread, "in_process", True, f"false where {', '.join(unread)} is given: only processes have them")


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """A language model that compares answers for tasks whose verifier is `judge`: an OpenAI-compatible endpoint."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CLOSED

    url: str  # such as https://HOST/v1
    model: str
    key_env: str | None = None  # name of the environment variable that holds the key
    seconds: float = 60.0  # of one attempt
    concurrent: int = 8  # calls at a time
    cache: str | None = None  # folder; ~/.cache/thinkvl/judge when left out

    def __post_init__(self) -> None:
        check(self.url.startswith(("http://", "https://")), "url", self.url, "like https://HOST/v1")
        check(bool(self.model), "model", self.model, "the name of a model of the endpoint")
        name = self.key_env is None or self.key_env.isidentifier()
        check(name, "key_env", self.key_env, "the name of an environment variable, never the key itself")
        check(self.seconds > 0, "seconds", self.seconds, "greater than 0")
        check(self.concurrent > 0, "concurrent", self.concurrent, "1 or more")
