"""The score of one response while its parts are still coming, from whatever thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from configs.rewards import RewardConfig
from rewards.plugins.interface import Outcome
from rewards.shaping import TERMS
from rewards.types import Score, Verdict, VerdictKind
from rewards.verifiers import options

VERIFIER = "verifier"  # the task's own verifier; its verdict is wanted whether or not it is a term


class Pending:
    """Collects the outcome of the task's verifier and of every term; with the last one the future has its Score."""

    def __init__(self, terms: Sequence[RewardConfig], count: Callable[[str, VerdictKind], None]) -> None:
        self.future: Future[Score] = Future()
        self.future.set_running_or_notify_cancel()  # from here on nobody can cancel it
        self._terms, self._count = terms, count
        self._missing = {VERIFIER, *(term.use for term in terms)}
        self._outcomes: dict[str, Outcome] = {}
        self._lock = threading.Lock()

    def verdict(self, result: Verdict | Exception, seconds: float) -> None:
        """What the built-in verifier found; `seconds` are those of workers. An exception is a mistake of ours."""
        if isinstance(result, Exception):
            self.future.set_exception(result)
        else:
            verdict = replace(result, seconds=result.seconds + seconds)
            self.put(VERIFIER, Outcome(value=verdict.score, verdict=verdict))

    def put(self, name: str, outcome: Outcome) -> None:
        """Take one outcome."""
        with self._lock:
            self._outcomes[name] = outcome
            self._missing.discard(name)
            if self._missing or self.future.done():
                return
        self.future.set_result(self._score())

    def _score(self) -> Score:
        parts: dict[str, float] = {}
        failed: dict[str, Verdict] = {}
        total = 0.0
        for term in self._terms:
            outcome, name = self._outcomes[term.use], part_name(term.use)
            if not outcome.verdict.is_reward:
                self._count(name, outcome.verdict.kind)
                failed[name] = outcome.verdict
                continue
            parts[name] = outcome.value
            parts |= {f"{name}/{part}": value for part, value in outcome.parts.items()}
            total += term.weight * outcome.value
        return Score(
            verdict=self._outcomes[VERIFIER].verdict,
            reward=None if failed else total,
            parts=parts,
            failures=failed,
        )


def part_name(use: str) -> str:
    """The name under which a term's value is kept: shaping terms lose their options."""
    name = options.base_name(use)
    return name if name in TERMS else use
