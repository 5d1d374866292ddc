"""Data that would make a run worthless stops it before any training."""

import dataclasses
import json
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from configs.data import DataConfig, SourceConfig
from configs.errors import UserError
from configs.long_context import LongContextConfig
from configs.model import ModelConfig
from configs.rl import RLConfig
from configs.schema import RunConfig
from configs.supervised import SFTConfig
from kimi_vl import create_tiny_checkpoint
from rewards.types import Task
from rl.run import leaks as leaks_module
from rl.run.console import PlainConsole
from rl.run.context import open_context
from rl.run.folder import RunFolder
from rl.run.stage_inputs import open_inputs, training_part
from rollouts.model_family import family_at
from rollouts.tasks.mixture import TaskMixture


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(create_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), corpus=["How many? Three."] * 4))


def refusal(tmp_path, tiny, monkeypatch, **config):
    """What opening the run says; neither Ray nor a worker is started."""
    monkeypatch.setattr("rl.run.context.start_ray", lambda processes, say: pytest.fail("the run was started"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    made = RunConfig(name="t", output_dir=str(tmp_path / "run"), model=ModelConfig(path=tiny), **config)
    with (
        pytest.raises(UserError) as error,
        open_context(made, RunFolder.open(made), tmp_path, PlainConsole(quiet=True)),
    ):
        pass
    return str(error.value)


def rows(tmp_path, **fields):
    text = "".join(
        json.dumps({"question": "How many?", "answer": "3", "id": str(i), **fields}) + "\n" for i in range(8)
    )
    Path(tmp_path / "rows.jsonl").write_text(text, encoding="utf-8")
    return (SourceConfig(use="rows.jsonl"),)


def test_prompts_that_are_all_too_long(tmp_path, tiny, monkeypatch):
    data = DataConfig(max_prompt_tokens=3)
    text = refusal(tmp_path, tiny, monkeypatch, data=data, stages=(RLConfig(steps=1),))
    assert text == "data.train: none of the first 64 tasks can be rendered: prompt longer than 3 tokens (64)"


def test_held_out_prompts_that_are_all_too_long(tmp_path, tiny, monkeypatch):
    held_out = rows(tmp_path, question="How many? " * 400)
    data = DataConfig(held_out=held_out, max_prompt_tokens=200)
    text = refusal(tmp_path, tiny, monkeypatch, data=data, stages=(RLConfig(steps=1),))
    assert text == "data.held_out: none of the 8 tasks can be rendered: prompt longer than 200 tokens (8)"


def test_thinking_without_solutions(tmp_path, tiny, monkeypatch):
    data = DataConfig(train=rows(tmp_path))
    text = refusal(
        tmp_path, tiny, monkeypatch, data=data, stages=(SFTConfig(name="long_cot", steps=1, thinking_share=0.5),)
    )
    assert "long_cot.thinking_share = 0.5: none of the first 64 tasks of data.train has a solution" in text


def test_an_image_that_a_row_names_may_not_change(tmp_path, tiny, monkeypatch):
    class Started(Exception):
        pass

    def start(processes, say):
        raise Started

    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("rl.run.context.start_ray", start)
    Image.new("RGB", (28, 28), "red").save(tmp_path / "a.png")
    data = DataConfig(train=rows(tmp_path, image="a.png"))
    stages = (RLConfig(steps=1, prompts_per_step=2),)
    made = RunConfig(name="t", output_dir=str(tmp_path / "run"), model=ModelConfig(path=tiny), data=data, stages=stages)

    def begin():
        with open_context(made, RunFolder.open(made), tmp_path, PlainConsole(quiet=True)):
            pass

    for color in ("red", "red", "green"):  # a run that has made no step may change its files
        Image.new("RGB", (28, 28), color).save(tmp_path / "a.png")
        with pytest.raises(Started):
            begin()
    (tmp_path / "run" / "metrics.jsonl").write_text('{"stage": "rl", "step": 1}\n')
    Image.new("RGB", (28, 28), "blue").save(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"tasks of rows\.jsonl \(train\): 8 tasks \(\w+\) then, 8 tasks \(\w+\) now"):
        begin()


def test_an_engine_that_no_run_can_use(tmp_path, tiny, monkeypatch):
    text = "from rollouts.engines.protocol import Engine\n\nclass Mine(Engine):\n    def __init__(self, spec): ...\n"
    (tmp_path / "mine.py").write_text(text)
    stage = RLConfig(steps=1, engine="mine.py:Mine")
    said = refusal(tmp_path, tiny, monkeypatch, stages=(stage,))
    assert said.startswith(
        f"rl.engine 'mine.py:Mine': {tmp_path}/mine.py:3: class Mine cannot be used:\n  it lacks add,"
    )
    members = "fixed_weights = True\n    version = 0\n    def add(self, index, request, sampling): ...\n"
    members += (
        "    def step(self): ...\n    def cancel(self, indices): ...\n    def start_load(self, shapes): ...\n"
        "    def load_weights(self, weights): ...\n    def finish_load(self, version): ..."
    )
    (tmp_path / "mine.py").write_text(f"{text}    {members}\n")
    said = refusal(tmp_path, tiny, monkeypatch, stages=(stage,))
    assert said.startswith("rl.engine = 'mine.py:Mine': the weights of this engine are fixed")


def test_without_validation_a_part_of_the_training_rows_is_set_apart_and_the_console_says_so(tmp_path, tiny):
    processor = family_at(tiny).load_processor(tiny)
    lines = [json.dumps({"question": "How many?", "answer": "3", "id": str(i)}) for i in range(300)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines), encoding="utf-8")
    data = DataConfig(train=(SourceConfig(use="many.jsonl"),), held_out=rows(tmp_path))
    stages = (SFTConfig(name="sft", steps=1), RLConfig(name="rl", steps=1))
    config = RunConfig(name="t", output_dir=str(tmp_path), model=ModelConfig(path=tiny), data=data, stages=stages)
    console = PlainConsole(record=True, width=200)
    with ExitStack() as stack:
        inputs, _ = open_inputs(stack, config, processor, tmp_path, console, base_context=1024)
    assert training_part(config) == "train", "in the SFT stage, too"
    apart = {prompt.task.id for prompt in inputs["rl"].validation}
    mixture = TaskMixture(data.train, seed=5, base=tmp_path, part=training_part(config))
    trained = {task.id for step in range(8) for task in mixture.draw(step, 40)}
    assert len(apart) + len(trained) == 300
    assert not apart & trained
    assert not apart & {prompt.task.id for prompt in inputs["rl"].held_out}
    assert (
        f"rl: data.validation is empty, so the best checkpoint is chosen by {len(apart)} tasks" in console.export_text()
    )


def test_a_leak_into_a_large_training_source_is_a_lower_bound(monkeypatch):
    tasks = [Task(id=str(i), source="s", question=f"{i}?", answer="1") for i in range(20)]
    source = type("Rows", (), {"endless": False, "task": lambda _, at, epoch: tasks[at], "__len__": lambda _: 20})()
    train = SimpleNamespace(sources=[source])
    assert leaks_module.leak_line(train, {"held_out": tasks}).startswith("data leak: 20 tasks of held_out")
    monkeypatch.setattr(leaks_module, "_LOOKED_AT", 10)
    assert leaks_module.leak_line(train, {"held_out": tasks}).startswith("data leak: at least 10 tasks of held_out")


@pytest.mark.parametrize("leaks", [0, 3])
def test_held_out_tasks_that_are_trained_on_are_told_at_the_start(tmp_path, tiny, leaks):
    """Once, though two stages have the data: how many, one of them, and how to see the others."""
    for name, numbers in (("train", range(20)), ("held", range(20 - leaks, 40))):
        rows = [{"question": f"How much is {i} + 1?", "answer": str(i + 1)} for i in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = {"train": "train", "validation": "train", "held_out": "held"}
    data = DataConfig(**{role: (SourceConfig(use=f"{name}.jsonl"),) for role, name in names.items()})
    if not leaks:
        data = dataclasses.replace(data, validation=(SourceConfig(use="digit_sums", options={"scans": [2]}),))
    stages = (SFTConfig(name="sft", steps=1), RLConfig(name="rl", steps=1))
    config = RunConfig(name="t", output_dir=str(tmp_path), model=ModelConfig(path=tiny), data=data, stages=stages)
    console = PlainConsole(record=True, width=300)
    with ExitStack() as stack:
        open_inputs(stack, config, family_at(tiny).load_processor(tiny), tmp_path, console, base_context=1024)
    said = [line for line in console.export_text().splitlines() if line.startswith("data leak")]
    example = "such as 'How much is 18 + 1?' (held.jsonl/1, in training train.jsonl/18)"
    end = f"{example}: the accuracy on them measures memory; `thinkvl audit RECIPE` lists them"
    assert said == (
        [
            f"data leak: 3 tasks of held_out among the training tasks, {end}",
            f"data leak: 23 tasks of held_out and validation among the training tasks, {end}",
        ]
        if leaks
        else []
    )


def test_with_validation_of_its_own_a_run_trains_on_all_rows(tmp_path):
    data = DataConfig(validation=(SourceConfig(use="digit_sums", options={"scans": [2]}),))
    config = RunConfig(name="t", output_dir=str(tmp_path), data=data, stages=(RLConfig(steps=1),))
    assert training_part(config) == "all"


def test_a_long_context_stage_raises_the_longest_prompt_and_never_lowers_it(tmp_path, tiny, monkeypatch):
    def stages(context):
        return (
            SFTConfig(name="short", steps=1, thinking_share=0),
            LongContextConfig(steps=1, rope_base=1e4, context=context, max_tokens=512),
            SFTConfig(name="long", steps=1, thinking_share=0),
        )

    long_rows = rows(tmp_path, question="How many? " * 400)
    data = DataConfig(
        train=(SourceConfig(use="digit_sums"), *long_rows), held_out=(*long_rows, SourceConfig(use="digit_sums"))
    )
    config = RunConfig(name="t", output_dir=str(tmp_path), model=ModelConfig(path=tiny), data=data, stages=stages(4096))
    processor = family_at(tiny).load_processor(tiny)
    with ExitStack() as stack:
        console = PlainConsole(record=True, width=200)
        inputs, _ = open_inputs(stack, config, processor, tmp_path, console, base_context=1024)
    contexts = {name: (own.context, own.renderer.max_prompt_tokens) for name, own in inputs.items()}
    assert contexts == {"short": (1024, 1024), "long_context": (4096, 4096), "long": (4096, 4096)}
    assert "held_out: 8 tasks left out (prompt longer than 1,024 tokens)" in console.export_text()
    assert len(inputs["long"].held_out) == len(inputs["short"].held_out) + 8
    said = refusal(tmp_path, tiny, monkeypatch, data=data, stages=stages(512))
    assert said == "long_context.context = 512: must be 1024 or more, the context of the model that enters the stage"
