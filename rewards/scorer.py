"""Scores responses: each term of the recipe's `rewards`, summed with its weight. Any actor can wrap the plain class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.schema import RewardConfig
from rewards.plugins import Outcome, PluginError, RewardFunction, call_reward, load_reward
from rewards.pool import Worker
from rewards.shaping import format_reward
from rewards.types import Score, Task, Verdict, VerdictKind
from rewards.verifiers import VERIFIERS

VERIFIER = "verifier"  # the task's own verifier
FORMAT = "format"


class Scorer:
    """Scores responses with the terms of a recipe.

    Every term is loaded here, so that a mistake in a recipe is found before any work starts (`PluginError`).
    `base`: the folder of the recipe, which relative plug-in files are looked for in. `seconds`: wall-clock limit of
    one comparison in the worker process, which starts when the first answer needs it. Without terms, the task's own
    verifier is the reward. Scorers pickle as their configuration. Thread-safe.
    """

    def __init__(self, rewards: Sequence[RewardConfig], *, base: Path | None = None, seconds: float = 1.5) -> None:
        self._config = (tuple(rewards), base, seconds)
        self._terms = tuple(rewards) or (RewardConfig(),)
        self._base = base
        self._worker = Worker(seconds=seconds)
        self._verifiers: dict[str, RewardFunction] = {name: make(self._worker) for name, make in VERIFIERS.items()}
        self._plugins: dict[str, RewardFunction] = {}
        self._failures: Counter[str] = Counter()
        names = [term.use for term in self._terms]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise PluginError(f"rewards name {', '.join(doubled)} more than once; give each term once, with its weight")
        for name in names:
            if name not in (VERIFIER, FORMAT):
                self._plugins[name] = load_reward(name, base=base, known=(VERIFIER, FORMAT))

    def check_tasks(self, tasks: Sequence[Task]) -> None:
        """Load the verifier of every task; raises PluginError, naming a task, where one cannot be loaded."""
        for name, task in {task.verifier: task for task in reversed(tasks)}.items():
            self._verifier(name, task)

    def score(self, responses: Sequence[str], tasks: Sequence[Task]) -> list[Score]:
        """One Score for each response and its task, in order.

        Raises ValueError where the two differ in length, PluginError where a task names an unknown verifier.
        """
        if len(responses) != len(tasks):
            raise ValueError(f"{len(responses)} responses for {len(tasks)} tasks: give the task of each response")
        return [self._score(response, task) for response, task in zip(responses, tasks, strict=True)]

    @property
    def failures(self) -> Mapping[str, int]:
        """How often each term failed so far, by "term/kind", such as "verifier/timeout"; for metrics."""
        return dict(self._failures)

    def close(self) -> None:
        """Stop the worker process. A later `score` starts a new one."""
        self._worker.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, self._config)

    def _score(self, response: str, task: Task) -> Score:
        own = call_reward(self._verifier(task.verifier, task), response, task.answer, task=task)
        parts: dict[str, float] = {}
        failed: dict[str, Verdict] = {}
        total = 0.0
        for term in self._terms:
            outcome = own if term.use == VERIFIER else self._term(term.use, response, task)
            if not outcome.verdict.is_reward:
                self._failures[f"{term.use}/{outcome.verdict.kind.value}"] += 1
                failed[term.use] = outcome.verdict
                continue
            parts[term.use] = outcome.value
            parts |= {f"{term.use}/{name}": value for name, value in outcome.parts.items()}
            total += term.weight * outcome.value
        return Score(
            verdict=own.verdict,
            reward=None if failed else total,
            parts=parts,
            failures=failed,
        )

    def _term(self, name: str, response: str, task: Task) -> Outcome:
        if name == FORMAT:
            value = format_reward(response)
            kind = VerdictKind.CORRECT if value else VerdictKind.WRONG
            return Outcome(value=value, verdict=Verdict(kind=kind, score=value, rule=FORMAT))
        return call_reward(self._plugins[name], response, task.answer, task=task)

    def _verifier(self, name: str, task: Task) -> RewardFunction:
        if name not in self._verifiers:
            try:
                self._verifiers[name] = load_reward(name, base=self._base, known=VERIFIERS)
            except PluginError as error:
                raise PluginError(f"task {task.id!r} of {task.source!r}: its verifier: {error}") from error
        return self._verifiers[name]


def _rebuild(rewards: Sequence[RewardConfig], base: Path | None, seconds: float) -> Scorer:
    return Scorer(rewards, base=base, seconds=seconds)
