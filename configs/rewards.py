"""The terms of a reward, and the judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from configs.rules import CLOSED, check
from configs.rules import CLOSED as _CLOSED
from configs.rules import check as _check


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardConfig:
    """One term of the reward: `verifier` (the task's own), `format`, or the name of a plug-in.

    The keys from `in_process` on say how a plug-in runs; those of a term `verifier` are for the plug-ins that tasks
    name as their verifier.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = CLOSED

    # `verifier` (the task's own), `format`, `repetition`, `language`, or a plug-in: `file.py:function`,
    # `module:function` or the name of an entry point, each also after `trl:`, `trl_text:` or `verl:`
    use: str = "verifier"
    weight: float = 1.0  # what the term is multiplied by; below 0 for a penalty, not 0
    only_for: tuple[str, ...] = ()  # verifiers of tasks; the term counts for these tasks alone; empty: for all
    in_process: bool = False  # call the plug-in in the process of the run, where nothing limits it
    workers: int | None = None  # most processes of the plug-in; null: one for each core
    seconds: float = 10.0  # limit of one call; greater than 0
    memory_mb: int = 2048  # limit of the address space of each process; 64 or more
    env: tuple[str, ...] = ()  # names of environment variables that the processes get
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

    url: str  # an OpenAI-compatible endpoint, such as `https://HOST/v1`
    model: str  # the model's name there
    key_env: str | None = None  # name of the environment variable that holds the key; null sends none
    seconds: float = 60.0  # limit of one attempt; a failed one is repeated up to three times; greater than 0
    concurrent: int = 8  # calls at a time
    cache: str | None = None  # folder that keeps verdicts; null: `~/.cache/thinkvl/judge`

    def __post_init__(self) -> None:
        check(self.url.startswith(("http://", "https://")), "url", self.url, "like https://HOST/v1")
        check(bool(self.model), "model", self.model, "the name of a model of the endpoint")
        name = self.key_env is None or self.key_env.isidentifier()
        check(name, "key_env", self.key_env, "the name of an environment variable, never the key itself")
        check(self.seconds > 0, "seconds", self.seconds, "greater than 0")
        check(self.concurrent > 0, "concurrent", self.concurrent, "1 or more")


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthRewardConfig:
    """k1.5 §2.3.3: nothing for the first `warmup_steps`, then `weight` times the min-max length reward."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = _CLOSED

    weight: float  # what the length reward is multiplied by; greater than 0
    warmup_steps: int = 0  # steps without it at the start

    def __post_init__(self) -> None:
        _check(self.weight > 0, "weight", self.weight, "greater than 0 (length_reward: null for none)")
        _check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
