"""The supervised stage: what is learnt from, one gradient however a step is cut, and a resume that loses nothing."""

import pytest
import torch
from rl_helpers import SIZES

from configs.schema import OptimizerConfig, SFTConfig, SourceConfig
from kimi_vl import create_tiny_checkpoint, load_model, load_processor
from rewards.types import Task
from rl.errors import UserError
from rl.stages.sft import AnswerCollator, answer_text, build_examples, run_sft
from rollouts.prompts import PromptRenderer
from rollouts.tasks.mixture import TaskMixture


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    corpus = ["What is the result? ◁think▷7+4=11◁/think▷11"] * 20
    return create_tiny_checkpoint(tmp_path_factory.mktemp("sft") / "tiny", corpus=corpus, sizes=SIZES)


@pytest.fixture(scope="module")
def processor(folder):
    return load_processor(folder)


@pytest.fixture(scope="module")
def renderer(processor):
    return PromptRenderer(processor, max_prompt_tokens=200)


@pytest.fixture
def mixture(tmp_path):
    return TaskMixture([SourceConfig(use="digit_sums")], seed=3, base=tmp_path)


def config_of(*, steps=6, micro_batches=1):
    return SFTConfig(
        steps=steps,
        batch_size=8,
        micro_batches=micro_batches,
        thinking_share=0.5,
        save_every=2,
        optimizer=OptimizerConfig(name="muon", learning_rate=2e-3, warmup_steps=2),
    )


def test_an_answer_with_and_without_thinking():
    task = Task(id="1", source="s", question="?", answer="11", solution="7+4=11")
    assert answer_text(task, thinking=False) == "11"
    assert answer_text(task, thinking=True) == "◁think▷7+4=11◁/think▷11"


def test_examples_of_a_step_go_by_length_and_keep_their_tasks(processor, mixture):
    config = config_of()
    tasks, dataset = build_examples(mixture, processor, config, seed=0)
    assert sorted(dataset["example"]) == list(range(48))
    thinking = 0
    for start in range(0, 48, 8):
        rows = [dataset[i] for i in range(start, start + 8)]
        assert {row["example"] // 8 for row in rows} == {start // 8}, "each step keeps its own tasks"
        lengths = [len(row["input_ids"]) for row in rows]
        assert lengths == sorted(lengths)
        for row in rows:
            text = processor.tokenizer.decode(row["input_ids"])
            task = tasks[row["example"]]
            ended = text.endswith("<|im_end|>")
            assert ended
            assert text.removesuffix("<|im_end|>") in (
                answer_text(task, thinking=False),
                answer_text(task, thinking=True),
            )
            thinking += "◁think▷" in text
    assert 14 <= thinking <= 34, "about half of 48"
    again = build_examples(mixture, processor, config, seed=0)[1]
    assert again.to_list() == dataset.to_list()
    assert build_examples(mixture, processor, config, seed=1)[1].to_list() != dataset.to_list()


def test_only_answers_are_learnt(processor, renderer, mixture):
    tasks, dataset = build_examples(mixture, processor, config_of(), seed=0)
    rows = [dataset[i] for i in range(8)]
    batch = AnswerCollator(tasks, renderer, pad_id=processor.tokenizer.pad_token_id)(rows)
    for i, row in enumerate(rows):
        learnt = batch["labels"][i] != -100
        assert batch["labels"][i][learnt].tolist() == row["input_ids"]
        assert torch.equal(batch["input_ids"][i][learnt], batch["labels"][i][learnt])
        prompt = renderer.render(tasks[row["example"]]).input_ids
        assert batch["input_ids"][i, : len(prompt)].tolist() == prompt.tolist(), "the prompt that RL will see"
        assert int(learnt.nonzero()[0]) == len(prompt)
        assert batch["attention_mask"][i].sum() == len(prompt) + len(row["input_ids"])
    assert len(batch["pixel_values"]) == int(batch["image_grid_hws"].prod(-1).sum())


def test_tasks_that_cannot_be_rendered_are_counted(processor, renderer):
    tasks = [
        Task(id="1", source="s", question="What?", answer="1"),
        Task(id="2", source="s", question="What?", answer="2", images=(b"no picture",)),
    ]
    collator = AnswerCollator(tasks, renderer, pad_id=processor.tokenizer.pad_token_id)
    batch = collator([{"example": 0, "input_ids": [5]}, {"example": 1, "input_ids": [6]}])
    assert batch["input_ids"].shape[0] == 1
    assert sum(collator.skipped.values()) == 1
    with pytest.raises(UserError, match="none of 1 examples can be rendered"):
        collator([{"example": 1, "input_ids": [6]}])


class Stopped(Exception):
    pass


@pytest.fixture
def train(tmp_path, folder, processor, renderer, mixture):
    """Trains a fresh model; `name` is the checkpoints' folder, `stop` raises after that step."""

    def run(config, name, *, stop=None):
        model = load_model(folder)
        logged = []

        def on_step(step, values):
            logged.append((step, values))
            if step == stop:
                raise Stopped

        def begin():
            run_sft(
                model,
                processor,
                renderer,
                mixture,
                config,
                folder=tmp_path / name,
                seed=0,
                on_step=on_step,
            )

        if stop is None:
            begin()
        else:
            with pytest.raises(Stopped):
                begin()
        return model.state_dict(), logged

    return run


def test_one_gradient_whatever_the_micro_batches(train):
    """By token over the whole step: the loss and the gradient's norm are the same for 1, 2 and 8 forward passes."""
    runs = [train(config_of(steps=1, micro_batches=m), f"m{m}")[1] for m in (1, 2, 8)]
    for [(_, values)] in runs[1:]:
        assert values["loss"] == pytest.approx(runs[0][0][1]["loss"], rel=1e-4)
        assert values["grad_norm"] == pytest.approx(runs[0][0][1]["grad_norm"], rel=1e-3)


def test_every_step_is_reported(train):
    before = train(config_of(steps=4), "a")
    assert [step for step, _ in before[1]] == [1, 2, 3, 4]
    assert all({"loss", "grad_norm", "learning_rate"} <= values.keys() for _, values in before[1])
    assert [v["learning_rate"] for _, v in before[1]] == pytest.approx([2e-3 / 3, 4e-3 / 3, 2e-3, 2e-3])


def test_a_stopped_stage_goes_on_as_if_it_had_not(train):
    whole, logged = train(config_of(), "whole")
    train(config_of(), "cut", stop=5)
    resumed, rest = train(config_of(), "cut")
    assert [step for step, _ in rest] == [5, 6], "from the checkpoint of step 4"
    assert [v["loss"] for _, v in rest] == [v["loss"] for _, v in logged[4:]]
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
