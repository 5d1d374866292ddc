"""Scores responses: each term of the recipe's `rewards`, summed with its weight. Any actor can wrap the plain class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from configs.schema import JudgeConfig, RewardConfig
from rewards import options
from rewards.plugins import Outcome, PluginError, RewardFunction, call_reward, load_reward
from rewards.pool import Worker
from rewards.shaping import TERMS, Batch, Term
from rewards.types import Score, Task, Verdict, VerdictKind
from rewards.verifiers import JUDGE, VERIFIERS, build_verifier, is_built_in

VERIFIER = "verifier"  # the task's own verifier


class Scorer:
    """Scores responses with the terms of a recipe.

    Every term is loaded here, so that a mistake in a recipe is found before any work starts (`PluginError`).
    `base`: the folder of the recipe, which relative plug-in files are looked for in. `seconds`: wall-clock limit of
    one comparison in the worker process, which starts when the first answer needs it. Without terms, the task's own
    verifier is the reward. `judge` is for tasks whose verifier is `judge`. Scorers pickle as their configuration.
    Thread-safe.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        *,
        base: Path | None = None,
        seconds: float = 1.5,
        judge: JudgeConfig | None = None,
    ) -> None:
        self._config = (tuple(rewards), base, seconds, judge)
        self._terms = tuple(rewards) or (RewardConfig(),)
        self._base = base
        self._worker = Worker(seconds=seconds)
        self._judge = judge
        self._verifiers: dict[str, RewardFunction] = {}
        self._plugins: dict[str, RewardFunction] = {}
        self._shaping: dict[str, Term] = {}
        self._failures: Counter[str] = Counter()
        names = [_part(term.use) for term in self._terms]
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise PluginError(f"rewards name {', '.join(doubled)} more than once; give each term once, with its weight")
        for use, name in zip((term.use for term in self._terms), names, strict=True):
            if name in TERMS:
                self._shaping[name] = options.make(TERMS, use)
            elif name != VERIFIER:
                self._plugins[name] = load_reward(use, base=base, known=(VERIFIER, *TERMS))
        if judge is not None:
            self._verifiers[JUDGE] = build_verifier(JUDGE, self._worker, judge=judge)

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
            name = _part(term.use)
            outcome = own if name == VERIFIER else self._term(name, response, task)
            if not outcome.verdict.is_reward:
                self._failures[f"{name}/{outcome.verdict.kind.value}"] += 1
                failed[name] = outcome.verdict
                continue
            parts[name] = outcome.value
            parts |= {f"{name}/{part}": value for part, value in outcome.parts.items()}
            total += term.weight * outcome.value
        return Score(
            verdict=own.verdict,
            reward=None if failed else total,
            parts=parts,
            failures=failed,
        )

    def _term(self, name: str, response: str, task: Task) -> Outcome:
        if name in self._shaping:
            [value] = self._shaping[name](Batch(texts=[response], questions=[task.question]))
            kind = VerdictKind.CORRECT if value > 0 else VerdictKind.WRONG
            return Outcome(value=value, verdict=Verdict(kind=kind, score=max(0.0, value), rule=name))
        return call_reward(self._plugins[name], response, task.answer, task=task)

    def _verifier(self, name: str, task: Task) -> RewardFunction:
        if name not in self._verifiers:
            try:
                self._verifiers[name] = (
                    build_verifier(name, self._worker, judge=self._judge)
                    if is_built_in(name)
                    else load_reward(name, base=self._base, known=VERIFIERS)
                )
            except PluginError as error:
                raise PluginError(f"task {task.id!r} of {task.source!r}: its verifier: {error}") from error
        return self._verifiers[name]


def _part(use: str) -> str:
    """The name under which a term's value is kept: shaping terms lose their options."""
    name = options.base_name(use)
    return name if name in TERMS else use


def _rebuild(rewards: Sequence[RewardConfig], base: Path | None, seconds: float, judge: JudgeConfig | None) -> Scorer:
    return Scorer(rewards, base=base, seconds=seconds, judge=judge)
