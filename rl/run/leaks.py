"""Says at the start of a run that held-out or validation tasks are among the training tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from configs.text import counted, shorten
from rewards.audit.data import fingerprint
from rewards.types import Task
from rollouts.tasks.documents import Example
from rollouts.tasks.mixture import Mixture

_LOOKED_AT = 500  # rows of each training source, spread over it; `thinkvl audit` reads all


def leak_line(train: Mixture[Example], measured: Mapping[str, Sequence[Task]]) -> str | None:
    """A line that counts the tasks of `measured` that are training tasks too, with an example; None without one.

    Equal are a question and its images, as in `thinkvl audit`. Endless sources are not looked at. Where only a
    part of a training source was, the line says "at least".
    """
    marks = {fingerprint(task): task for task in _training_tasks(train)}
    found = [
        (role, task, marks[mark])
        for role, tasks in measured.items()
        for task in tasks
        if (mark := fingerprint(task)) in marks
    ]
    if not found:
        return None
    roles = " and ".join(role for role in measured if any(role == own for own, _, _ in found))
    _, task, same = found[0]
    part = any(not source.endless and len(source) > _LOOKED_AT for source in train.sources)
    count = ("at least " if part else "") + counted(len(found), "task")
    return (
        f"data leak: {count} of {roles} among the training tasks, such as "
        f"{shorten(task.question, 60)!r} ({task.id}, in training {same.id}): the accuracy on them measures memory; "
        "`thinkvl audit RECIPE` lists them"
    )


def _training_tasks(train: Mixture[Example]) -> list[Task]:
    rows = []
    for source in train.sources:
        count = 0 if source.endless else min(_LOOKED_AT, len(source))
        rows += [source.task(at * len(source) // count, 0) for at in range(count)]
    return [row for row in rows if isinstance(row, Task)]
