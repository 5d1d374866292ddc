"""Leaves out tasks before sampling: kinds that are easily guessed, broken images, leaks, repetitions."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rewards.images import BadImage
from rewards.scorer import Scorer
from rewards.types import Task
from rl.curation.duplicates import BROKEN_IMAGE, EvaluationIndex, SeenTasks, prints_of
from rl.curation.inputs import TaskSet, digest_of, task_key
from rl.curation.kinds import PRONE, kind_of
from rl.curation.prompt_set import tags_of
from rl.curation.report import Report
from rl.run.console import PlainConsole
from rl.run.progress import StageProgress

_STEPS = 200  # of the progress bar


@dataclass(frozen=True, slots=True, kw_only=True)
class ScreenedTask:
    """A kept task, without its images."""

    place: tuple[int, int]  # in the task set
    id: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Screened:
    """The kept tasks by key, in their order."""

    left: dict[str, ScreenedTask]
    tasks: TaskSet
    contents: str  # a hash of all tasks that were read

    def read(self, key: str) -> Task:
        """Read the task of a key."""
        return self.tasks.at(self.left[key].place)


def index_evaluation(sets: Sequence[TaskSet], console: PlainConsole) -> tuple[EvaluationIndex, str]:
    """The images and questions of the evaluation sets, and a hash of their tasks."""
    index, keys = EvaluationIndex(), []
    total = sum(len(tasks.places) for tasks in sets)
    every = max(1, total // _STEPS)
    with StageProgress(console, "evaluation", total=-(-total // every)) as bar:
        for number, task in enumerate(itertools.chain.from_iterable(sets), 1):
            index.add(task)
            keys.append(task_key(task))
            if number % every == 0 or number == total:
                bar.advance({"tasks": number})
    if not total:
        console.print("no evaluation set is named, so none is compared with: a recipe's own are, or --against NAME")
    return index, digest_of(keys)


def screen(
    tasks: TaskSet,
    evaluation: EvaluationIndex,
    *,
    keep_kinds: Collection[str],
    scorer: Scorer,
    report: Report,
    console: PlainConsole,
) -> Screened:
    """Leave out tasks that should not be trained on, and load the verifiers of the others. Raises PluginError."""
    seen, keys, left = SeenTasks(), [], {}
    every = max(1, len(tasks.places) // _STEPS)
    with StageProgress(console, "screening", total=-(-len(tasks.places) // every)) as bar:
        for number, place in enumerate(tasks.places, 1):
            task = tasks.at(place)
            key = task_key(task)
            keys.append(key)
            reason = _reason(task, evaluation, seen, keep_kinds)
            if reason is None:
                scorer.check_tasks([task])
                left[key] = ScreenedTask(place=place, id=task.id, tags=tags_of(task))
            else:
                report.leave_out(*reason)
            if number % every == 0 or number == len(tasks.places):
                bar.advance({"left": len(left)})
    return Screened(left=left, tasks=tasks, contents=digest_of(keys))


def _reason(
    task: Task, evaluation: EvaluationIndex, seen: SeenTasks, keep_kinds: Collection[str]
) -> tuple[str, str] | None:
    """The reason why a task is left out and the task that it matches, or None."""
    kind = kind_of(task)
    if kind in PRONE and kind not in keep_kinds:
        return f"kind: {kind.replace('_', ' ')}", task.id
    try:
        prints = prints_of(task)
    except BadImage as error:
        return BROKEN_IMAGE, f"{task.id}: {error}"
    match = evaluation.find(task, prints) or seen.find(task, prints)
    return (match.reason, f"{task.id} is like {match.like}") if match else None
