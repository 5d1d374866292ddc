"""Scores responses: the weighted sum of the recipe's reward terms, for one response, a group or a batch.

Cheap comparisons are made in the caller's thread. Worker processes and plug-ins run meanwhile, so scoring overlaps with
whatever the caller does next, such as generating.
"""

from __future__ import annotations

import functools
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from configs.rewards import JudgeConfig, RewardConfig
from configs.text import did_you_mean, with_article
from rewards.pending_score import VERIFIER, Pending, part_name
from rewards.plugins.interface import Outcome, PluginError
from rewards.plugins.runner import AnyPlugin, make_plugin
from rewards.sandbox.pool import Flow, WorkerPool
from rewards.sandbox.resumable_worker import ResumableWorker
from rewards.sandbox.threads import Threads
from rewards.shaping import TERMS, Batch, Term
from rewards.types import Score, Task, Verdict, VerdictKind, Verifier
from rewards.verifiers.builtin import JUDGE, VERIFIERS, build_verifier, is_built_in, options

_BLOCKING_THREADS = 32  # for verifiers that wait for a service; such a class says `blocking = True`


class Scorer:
    """Scores responses with the reward terms of a recipe. Thread-safe; pickles as its configuration.

    The constructor loads every term, so a mistake in a recipe is found before any work starts.

    Args:
        rewards: The terms. Without any, the task's own verifier is the reward.
        base: The folder that relative plug-in files are looked for in; by default the working folder.
        seconds: Processor time of one comparison in a worker process.
        workers: Most worker processes, by default one a core. They start when the first response needs them.
        judge: The endpoint for tasks whose verifier is `judge`.
        allowed: Plug-ins that a task may name as its verifier, beside those that the terms name. A data file is not
            trusted to name code.

    Raises:
        PluginError: A term is unknown, cannot be loaded, or is given twice.
    """

    def __init__(
        self,
        rewards: Sequence[RewardConfig],
        *,
        base: Path | None = None,
        seconds: float = 1.5,
        workers: int | None = None,
        judge: JudgeConfig | None = None,
        allowed: Collection[str] = (),
    ) -> None:
        self._config = (tuple(rewards), base, seconds, workers, judge, tuple(allowed))
        self._terms = tuple(rewards) or (RewardConfig(),)
        self._base = base
        self._allowed = {*allowed, *(name for term in self._terms for name in (term.use, *term.only_for))}
        _check_terms(self._terms)
        self.pool = WorkerPool(seconds=seconds, workers=workers)
        self._worker = ResumableWorker(self.pool)
        self._judge = judge
        self._verifiers: dict[str, Verifier] = {}
        self._shaping: dict[str, Term] = {}
        self._plugins: dict[tuple[str, RewardConfig], AnyPlugin] = {}
        self._threads = Threads(_BLOCKING_THREADS)
        self._failures: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        try:
            for term in self._terms:
                if part_name(term.use) in TERMS:
                    self._shaping[term.use] = options.make(TERMS, term.use)
                elif term.use != VERIFIER:
                    self._plugin(term.use, term)
        except PluginError:
            self.close()
            raise

    def check_tasks(self, tasks: Sequence[Task]) -> None:
        """Load the verifier of every task; raises PluginError, naming a task, where one cannot be loaded."""
        for name, task in {task.verifier: task for task in reversed(tasks)}.items():
            self._terms_for(task)
            if is_built_in(name):
                self._verifier(task)
            else:
                self._task_plugin(task)

    def score(self, responses: Sequence[str], tasks: Sequence[Task]) -> list[Score]:
        """One Score for each response and its task, in order.

        Neighbours that have the same task are a group, which group plug-ins see as one.
        Raises ValueError where the two differ in length, PluginError where a task names an unknown verifier.
        """
        return [future.result() for future in self._start(responses, tasks)]

    def submit(self, responses: Sequence[str], task: Task, *, flow: Flow | None = None) -> list[Future[Score]]:
        """Begin to score the responses to one task (a group), for instance as soon as they are generated.

        Cheap comparisons are done before this returns. `flow`: what belongs together, such as a training step; by
        default each call is its own. A callback of a future must not wait for this scorer.
        """
        terms, flow = self._terms_for(task), flow or Flow()
        group = [Pending(terms, self._count) for _ in responses]
        self._verify(responses, task, group, flow)
        for term in terms:
            if term.use in self._shaping:
                batch = Batch(texts=responses, questions=[task.question] * len(responses))
                for value, pending in zip(self._shaping[term.use](batch), group, strict=True):
                    pending.put(term.use, _shaped(part_name(term.use), value))
            elif term.use != VERIFIER:
                self._plugin(term.use, term).start(responses, task, flow, _putter(group, term.use))
        return [pending.future for pending in group]

    @property
    def failures(self) -> Mapping[str, int]:
        """How often each term failed so far, by "term/kind", such as "verifier/timeout"; for metrics."""
        with self._lock:
            return dict(self._failures)

    def close(self) -> None:
        """Stop the worker processes. A later `score` starts new ones."""
        self.pool.close()
        self._threads.close()
        for plugin in list(self._plugins.values()):
            plugin.close()

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, self._config)

    def _start(self, responses: Sequence[str], tasks: Sequence[Task]) -> list[Future[Score]]:
        if len(responses) != len(tasks):
            raise ValueError(f"{len(responses)} responses for {len(tasks)} tasks: give the task of each response")
        flow = Flow()
        futures: list[Future[Score]] = []
        for start, stop in _groups(tasks):
            futures += self.submit(responses[start:stop], tasks[start], flow=flow)
        return futures

    def _verify(self, responses: Sequence[str], task: Task, group: Sequence[Pending], flow: Flow) -> None:
        if not isinstance(task.answer, str):
            detail = f"the reference is {with_article(type(task.answer).__name__)}, not a text"
            unusable = Verdict(kind=VerdictKind.BAD_REFERENCE, score=0.0, rule="reference", detail=detail)
            for pending in group:
                pending.verdict(unusable, 0.0)
            return None
        if not is_built_in(task.verifier):
            return self._task_plugin(task).start(responses, task, flow, _putter(group, VERIFIER))
        verifier = self._verifier(task)
        for response, pending in zip(responses, group, strict=True):
            verify = functools.partial(verifier, response, task.answer, task=task)
            if verifier.blocking:
                self._threads.submit(lambda verify=verify, pending=pending: pending.verdict(*_called(verify)))
            else:
                self._worker.run(verify, pending.verdict, flow)
        return None

    def _count(self, name: str, kind: VerdictKind) -> None:
        with self._lock:
            self._failures[f"{name}/{kind.value}"] += 1

    def _terms_for(self, task: Task) -> tuple[RewardConfig, ...]:
        terms = tuple(term for term in self._terms if not term.only_for or task.verifier in term.only_for)
        if not terms:
            raise PluginError(
                f"task {task.id!r} of {task.source!r}: no reward is for its verifier {task.verifier!r}; add that to "
                "the `only_for` of a reward, or leave `only_for` out"
            )
        return terms

    def _verifier(self, task: Task) -> Verifier:
        """The task's built-in verifier, with the options that stand behind its name."""
        with self._loading:
            if task.verifier not in self._verifiers:
                try:
                    self._verifiers[task.verifier] = build_verifier(task.verifier, self._worker, judge=self._judge)
                except PluginError as error:
                    raise PluginError(f"task {task.id!r} of {task.source!r}: its verifier: {error}") from error
            return self._verifiers[task.verifier]

    def _task_plugin(self, task: Task) -> AnyPlugin:
        """The plug-in that is the task's verifier, run as the term `verifier` for it says."""
        if task.verifier not in self._allowed:
            names = sorted((*VERIFIERS, JUDGE))
            raise PluginError(
                f"task {task.id!r} of {task.source!r}: its verifier {task.verifier!r} is not built "
                f"in{did_you_mean(task.verifier, names)}, and a row of data runs no other code unless you allow it by "
                f"name. Built in are {', '.join(names)}. If you trust it, add `{task.verifier}` to `data.verifiers` "
                "in the recipe, or `--allow` it on the command line"
            )
        config = next((term for term in self._terms_for(task) if term.use == VERIFIER), RewardConfig())
        try:
            return self._plugin(task.verifier, config)
        except PluginError as error:
            raise PluginError(f"task {task.id!r} of {task.source!r}: its verifier: {error}") from error

    def _plugin(self, spec: str, config: RewardConfig) -> AnyPlugin:
        """The plug-in, loaded. One for each way to run it, whatever its weight."""
        key = (spec, replace(config, use=spec, weight=1.0, only_for=()))
        with self._loading:
            if key not in self._plugins:
                plugin = make_plugin(spec, config, base=self._base, known=(VERIFIER, *TERMS, *VERIFIERS))
                try:
                    plugin.load()
                except PluginError:
                    plugin.close()
                    raise
                self._plugins[key] = plugin
            return self._plugins[key]


def _rebuild(
    rewards: Sequence[RewardConfig],
    base: Path | None,
    seconds: float,
    workers: int | None,
    judge: JudgeConfig | None,
    allowed: Sequence[str],
) -> Scorer:
    return Scorer(rewards, base=base, seconds=seconds, workers=workers, judge=judge, allowed=allowed)


def _check_terms(terms: Sequence[RewardConfig]) -> None:
    """No task may meet a term twice. Raises PluginError."""
    for place, term in enumerate(terms):
        for other in terms[:place]:
            both = set(term.only_for) & set(other.only_for) if term.only_for and other.only_for else {"every verifier"}
            name = part_name(term.use)
            if name == part_name(other.use) and both:
                raise PluginError(
                    f"rewards name {name} more than once for {', '.join(sorted(both))}; give each term once, with "
                    "its weight"
                )


def _groups(tasks: Sequence[Task]) -> Iterator[tuple[int, int]]:
    """Where each run of one and the same task starts and stops."""
    start = 0
    for stop in range(1, len(tasks) + 1):
        same = stop < len(tasks) and (tasks[stop] is tasks[start] or tasks[stop] == tasks[start])
        if not same:
            yield start, stop
            start = stop


def _shaped(name: str, value: float) -> Outcome:
    kind = VerdictKind.CORRECT if value > 0 else VerdictKind.WRONG
    return Outcome(value=value, verdict=Verdict(kind=kind, score=max(0.0, value), rule=name))


def _putter(group: Sequence[Pending], name: str) -> Callable[[int, Outcome], None]:
    return lambda place, outcome: group[place].put(name, outcome)


def _called(verify: Callable[[], Verdict]) -> tuple[Verdict | Exception, float]:
    try:
        return verify(), 0.0
    except Exception as error:
        return error, 0.0
