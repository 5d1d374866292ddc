"""Finds tasks that leak an evaluation set, and repeated tasks in a prompt set."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from rewards.images import BadImage
from rewards.types import Task
from rl.curation.image_prints import ImageIndex, ImagePrint, image_print
from rl.curation.text_prints import Gram, N, TextIndex, units

LEAKED_IMAGE = "image of an evaluation task"
LEAKED_TEXT = "question of an evaluation task"
REPEATED = "stands twice in the set"
BROKEN_IMAGE = "image cannot be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The reason why a task is left out, and the task that it matches."""

    reason: str
    like: str


class EvaluationIndex:
    """The images and questions of evaluation tasks.

    A task with images leaks if one of them looks like an evaluation image, or if its question shares 13 words in a row
    with an evaluation question, templates aside. A task of text alone leaks if its question equals an evaluation
    question or overlaps with one.
    """

    def __init__(self) -> None:
        self._images, self._texts, self._with_images = ImageIndex(), TextIndex(), TextIndex()

    def add(self, task: Task) -> None:
        """Add an evaluation task to the index."""
        for image in task.images:
            with suppress(BadImage):  # nobody can be evaluated on it
                self._images.add(image_print(image), task.id)
        if not self._texts.equal(task.question):
            self._texts.add(task.question, task.id)
        if len(units(task.question)) >= N:
            self._with_images.add(task.question, task.id)

    def find(self, task: Task, prints: Sequence[ImagePrint]) -> Match | None:
        """The evaluation task that `task` leaks, or None; `prints` are the prints of its images."""
        for found in prints:
            if like := self._images.find(found):
                return Match(reason=LEAKED_IMAGE, like=like[0])
        if task.images:
            like = self._with_images.overlapping(task.question)
        else:
            like = self._texts.equal(task.question) or self._texts.overlapping(task.question)
        return Match(reason=LEAKED_TEXT, like=like) if like else None


class SeenTasks:
    """The tasks of a set so far. A task repeats another if words, reference and all images are the same."""

    def __init__(self) -> None:
        self._images: dict[tuple[Gram, str, int], list[ImageIndex]] = {}  # for each place of an image in a task
        self._texts: dict[tuple[Gram, str], str] = {}  # of tasks without images

    def find(self, task: Task, prints: Sequence[ImagePrint]) -> Match | None:
        """The earlier task that `task` repeats; if there is none, add `task` and return None."""
        words, answer = units(task.question), task.answer.strip().casefold()
        if not prints:
            like = self._texts.setdefault((words, answer), task.id)
            return Match(reason=REPEATED, like=like) if like != task.id else None
        indices = self._images.setdefault((words, answer, len(prints)), [ImageIndex() for _ in prints])
        alike = [index.find(found) for index, found in zip(indices, prints, strict=True)]
        for name in alike[0]:
            if all(name in others for others in alike):
                return Match(reason=REPEATED, like=name)
        for index, found in zip(indices, prints, strict=True):
            index.add(found, task.id)
        return None


def prints_of(task: Task) -> list[ImagePrint]:
    """The `ImagePrint` of each image of a task. Raises BadImage."""
    return [image_print(image) for image in task.images]
