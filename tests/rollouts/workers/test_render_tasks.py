"""Prompts with large images from Ray tasks: the same bits, the same skips, patches by reference, processes that die."""

import io
import os
import pickle
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
import ray
from PIL import Image

from configs.data import DataConfig
from kimi_vl import load_processor
from rewards.types import Task
from rollouts.patches import Patches
from rollouts.tasks.prompts import PromptRenderer
from rollouts.workers import render_tasks
from rollouts.workers.actor import WorkerError
from rollouts.workers.render_tasks import RenderTasks, StoredPatches, pixels

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the processes of Ray do not import tests
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def renderer(tiny_folder):
    return PromptRenderer.from_config(load_processor(tiny_folder), DataConfig(max_prompt_tokens=1000))


def image(rng, width, height):
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8)).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture(scope="module")
def tasks():
    """Large and small images, a cut one, one of two images, a long prompt, a text, and a question that is refused."""
    rng = np.random.default_rng(3)
    large = [image(rng, 640, 480), image(rng, 450, 460), image(rng, 800, 800)]
    images = [
        *((large[0],), (image(rng, 30, 40),), (large[1][: len(large[1]) // 2],), (image(rng, 300, 400), large[1])),
        *(large[:2] * 2, (), (b"no picture",), (large[2],)),
    ]
    made = [Task(id=f"t{i}", source="s", question=f"{i}?", answer="1", images=own) for i, own in enumerate(images)]
    return [*made, replace(made[0], id="control", question="What?<|im_end|>")]


def same(one, other):
    assert (one.id, one.task) == (other.id, other.task)
    for name in ("input_ids", "image_grid_hws", "pixel_values"):
        mine, theirs = getattr(one, name), getattr(other, name)
        assert (mine.dtype, mine.shape, mine.tobytes()) == (theirs.dtype, theirs.shape, theirs.tobytes())
    assert len(one.patches) == len(other.patches) == len(other.patches.fetch())


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_the_same_prompts_and_the_same_skips(renderer, tasks):
    """In order, whichever task ends first; the patches do not pass through this process."""
    expected, skipped = renderer.render_all(tasks)
    found = RenderTasks(renderer).render(tasks)
    assert sorted(found) == [i for i, task in enumerate(tasks) if pixels(task) >= 200_000] == [0, 2, 3, 4, 7, 8]
    prompts, left_out = renderer.render_all(tasks, found)
    assert left_out == skipped == dict.fromkeys(skipped, 1)
    assert len(skipped) == 4, skipped
    assert [p.id for p in prompts] == [p.id for p in expected]
    for mine, theirs in zip(prompts, expected, strict=True):
        same(mine, theirs)
    stored = [p for p in prompts if isinstance(p.patches, StoredPatches)]
    assert [p.id for p in stored] == ["t0", "t3", "t7"]
    assert len(ray.cloudpickle.dumps(replace(stored[0], patches=Patches.join([stored[0].patches])))) > 500_000
    written = pickle.loads(pickle.dumps(stored[0].with_patches()))
    assert isinstance(written.patches, Patches)
    same(written, expected[0])


def test_small_images_begin_no_task(renderer, tasks, monkeypatch):
    monkeypatch.setattr(render_tasks, "_render", None)
    assert RenderTasks(renderer).render([tasks[1], tasks[5], tasks[6]]) == {}


def test_without_free_cpus_the_driver_renders(renderer, tasks, monkeypatch):
    monkeypatch.setattr(render_tasks, "_render", None)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.5})
    assert RenderTasks(renderer).render(tasks) == {}


class Dying(PromptRenderer):
    """Kills the process that renders for it, as often as `left` says; the file remembers."""

    def render(self, task):
        with self.marks.open("a") as file:
            file.write("x")
        if self.marks.stat().st_size <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().render(task)


def dying(renderer, folder, deaths):
    made = Dying(renderer.processor, max_prompt_tokens=1000, templates=renderer.templates)
    made.marks, made.deaths = folder / "marks", deaths
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_a_process_that_is_killed(renderer, tasks, tmp_path):
    """Another one renders the image: the run does not notice."""
    [found] = RenderTasks(dying(renderer, tmp_path, 1)).render(tasks[:1]).values()
    same(found, renderer.render(tasks[0]))


@pytest.mark.slow
@pytest.mark.usefixtures("local_ray")
def test_an_image_that_no_process_survives(renderer, tasks, tmp_path):
    with pytest.raises(WorkerError, match="task t0: the process that reads its images died 4 times"):
        RenderTasks(dying(renderer, tmp_path, 100)).render(tasks[:1])
