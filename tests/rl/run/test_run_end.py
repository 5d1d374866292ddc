"""The end of a run: an image and its question to go on with, and the licence of weights of an earlier run."""

import dataclasses
import io
from types import SimpleNamespace

import pytest
from PIL import Image

from configs.load import dump_recipe
from configs.rl import RLConfig
from configs.schema import ModelConfig, RunConfig
from rewards.types import Task
from rl.run.export import known_licence
from rl.run.report import _write_example


def answer(question, images=1):
    data = io.BytesIO()
    Image.new("L", (28, 28), 255).save(data, format="PNG")
    task = Task(id="1", source="s", question=question, answer="3", images=(data.getvalue(),) * images)
    return SimpleNamespace(rollout=SimpleNamespace(prompt=SimpleNamespace(task=task)))


@pytest.mark.parametrize(
    ("answers", "question"),
    [
        ([answer("no image", 0), answer("two", 2), answer("<image> How many?"), answer("next")], "How many?"),
        ([answer("words " * 100)], "..."),
        ([answer("a\x1b[31m")], "..."),
        ([answer("no image", 0)], ""),
    ],
)
def test_the_example_is_of_the_first_task_with_one_image(tmp_path, answers, question):
    path = tmp_path / "example.png"
    assert _write_example(answers, path) == question
    assert path.exists() == bool(question)
    if question:
        assert Image.open(path).size == (28, 28)


@pytest.mark.parametrize(("start", "licence"), [("tiny", "apache-2.0"), ("somebody/else", None)])
def test_weights_of_an_earlier_run_have_the_licence_that_it_started_from(tmp_path, start, licence):
    config = RunConfig(name="t", output_dir="x", model=ModelConfig(path=start), stages=(RLConfig(steps=1),))
    earlier = tmp_path / "earlier"
    for model in ("rl/model", "export"):
        (earlier / model).mkdir(parents=True)
        (earlier / "recipe.yaml").write_text(dump_recipe(config))
        later = dataclasses.replace(config, model=ModelConfig(path=str(earlier / model)))
        assert known_licence(later) == licence
