"""Renders prompts with large images in Ray tasks, so that the driver does not decode one image after the other.

A task has two results: a description of the prompt, which the driver reads, and the patches, which stay in the object
store. Workers and learner ranks fetch them by reference. Ray runs a task again whose process or node dies, also where
patches were lost later; the same image gives the same patches.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from rewards.images import BadImage, open_image
from rewards.types import Task
from rollouts.patches import Patches
from rollouts.tasks.prompts import PromptRenderer
from rollouts.types import Prompt
from rollouts.workers.actor import WorkerError

LARGE_PIXELS = 200_000  # of a prompt: below, the driver is as fast as a call of a task
MOST_PROCESSES = 16  # that render at once; each holds the libraries of the processor
TRIES = 4


@dataclass(frozen=True, slots=True)
class StoredPatches:
    """The patches of one prompt in the object store, which lie there as long as somebody refers to them."""

    ref: Any  # Ray's reference of the `Patches`
    count: int

    def __len__(self) -> int:
        """How many there are."""
        return self.count

    def fetch(self) -> Patches:
        """The patches, read where this node's object store has them: their array is read-only."""
        return ray.get(self.ref)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedText:
    """What the driver reads of a rendered prompt."""

    input_ids: np.ndarray  # [L] int64
    image_grid_hws: np.ndarray  # [N, 2] int64, in patches


class RenderTasks:
    """Renders tasks with large images as `renderer` does, in processes that Ray starts for it, on all nodes.

    It uses CPUs that nobody has reserved, and reserves none. With fewer than two it does nothing: the driver, which
    waits for the prompts, is as fast as one process.
    """

    def __init__(self, renderer: PromptRenderer) -> None:
        self._renderer = renderer
        self._renderer_ref: Any = None  # from the first large image on

    def render(self, tasks: Sequence[Task]) -> dict[int, Prompt | str]:
        """What `PromptRenderer.render_or_refuse` returns for each task with large images, by its place in `tasks`.

        Raises WorkerError where a task's process dies each time.
        """
        waiting = deque(place for place, task in enumerate(tasks) if pixels(task) >= LARGE_PIXELS)
        processes = min(MOST_PROCESSES, free_cpus()) if waiting else 0
        if processes < 2:
            return {}
        if self._renderer_ref is None:
            self._renderer_ref = ray.put(self._renderer)
        running: dict[Any, tuple[int, Any]] = {}  # by the reference of the text: place, reference of the patches
        found: dict[int, Prompt | str] = {}
        start: Any = _render.remote  # which Ray types as if there were one result
        while waiting or running:
            while waiting and len(running) < processes:
                place = waiting.popleft()
                text, patches = start([self._renderer_ref], tasks[place])
                running[text] = place, patches
            for text in ray.wait(list(running))[0]:
                place, patches = running.pop(text)
                found[place] = _prompt_of(tasks[place], text, patches)
        return found


def free_cpus() -> int:
    """CPUs of the cluster that nobody has reserved. As many idle processes Ray keeps; it ends the others at once."""
    return int(ray.available_resources().get("CPU", 0))


def pixels(task: Task) -> int:
    """Of all images of a task, read from their headers. 0 where one cannot be read: then the driver says so."""
    try:
        sizes = [open_image(data).size for data in task.images]
    except BadImage:
        return 0
    return sum(width * height for width, height in sizes)


@ray.remote(num_cpus=0, num_returns=2, max_retries=TRIES - 1, scheduling_strategy="SPREAD")
def _render(renderer: Sequence[Any], task: Task) -> tuple[RenderedText | str, Patches | None]:
    """The light and the heavy part of a prompt. The renderer comes as a reference in a list: it is read once."""
    found = _renderer_of(renderer[0]).render_or_refuse(task)
    if isinstance(found, str):
        return found, None
    return RenderedText(input_ids=found.input_ids, image_grid_hws=found.image_grid_hws), found.patches.fetch()


@functools.lru_cache(maxsize=4)
def _renderer_of(ref: Any) -> PromptRenderer:
    return ray.get(ref)


def _prompt_of(task: Task, text: Any, patches: Any) -> Prompt | str:
    try:
        found: RenderedText | str = ray.get(text)
    except RayTaskError:  # an error of ours
        raise
    except RayError as error:
        raise WorkerError(
            f"task {task.id}: the process that reads its images died {TRIES} times "
            f"({' '.join(str(error).split())[:300]}). If that is memory, lower rl.workers; if it is one image, leave "
            "the task out"
        ) from error
    if isinstance(found, str):
        return found
    grids = found.image_grid_hws
    stored = StoredPatches(patches, int(grids.prod(-1).sum()))
    return Prompt(id=task.id, task=task, input_ids=found.input_ids, patches=stored, image_grid_hws=grids)
