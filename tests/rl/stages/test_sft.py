"""The supervised stage: what is trained on, one gradient however a step is cut, and a resume that loses nothing."""

import numpy as np
import pytest
import torch
from rl_helpers import SIZES

from configs.data import SourceConfig
from configs.errors import UserError
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from configs.sft import SFTConfig
from kimi_vl import KimiVLConfig, create_tiny_checkpoint, load_model, load_processor
from rewards.types import Task
from rl.learner.lora import prepare_training
from rl.stages.sft_checkpoint import newest_checkpoint
from rl.stages.sft_trainer import AnswerCollator, build_examples, run_sft
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import PromptRenderer, target_text


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
    assert target_text(task, thinking=False) == "11"
    assert target_text(task, thinking=True) == "◁think▷7+4=11◁/think▷11"


def test_examples_keep_their_tasks(processor, mixture):
    config = config_of()
    tasks, dataset = build_examples(mixture, processor, config, seed=0)
    assert dataset["example"] == list(range(48))
    thinking = 0
    for row in dataset:
        text, task = processor.tokenizer.decode(row["input_ids"]), tasks[row["example"]]
        assert text in [target_text(task, thinking=t) + "<|im_end|>" for t in (False, True)]
        thinking += "◁think▷" in text
    assert 14 <= thinking <= 34, "about half of 48"
    again = build_examples(mixture, processor, config, seed=0)[1]
    assert again.to_list() == dataset.to_list()
    assert build_examples(mixture, processor, config, seed=1)[1].to_list() != dataset.to_list()


def test_only_answers_are_trained(processor, renderer, mixture):
    tasks, dataset = build_examples(mixture, processor, config_of(), seed=0)
    rows = [dataset[i] for i in range(8)]
    batch = AnswerCollator(tasks, renderer, KimiVLConfig())(rows)
    packed = batch["row"]
    assert packed.targets.tolist() == [token for row in rows for token in row["input_ids"]]
    assert batch["labels"].tolist() == batch["shift_labels"].tolist() == packed.targets.tolist()
    prompts = [renderer.render(tasks[row["example"]]).input_ids.tolist() for row in rows]
    expected = [token for prompt, row in zip(prompts, rows, strict=True) for token in prompt + row["input_ids"][:-1]]
    assert packed.input_ids.tolist() == expected, "the prompts that RL will see, no padding"
    assert len(batch["images"].pixel_values) == int(batch["images"].grids.prod(-1).sum())


def test_the_loss_is_the_likelihood_of_the_answers(folder, processor, renderer, mixture, train):
    """One step by the trainer, against the model's own forward on one example after the other."""
    config = config_of(steps=1)
    tasks, dataset = build_examples(mixture, processor, config, seed=0)
    model, total, count = load_model(folder), 0.0, 0
    for row in dataset:
        prompt = renderer.render(tasks[row["example"]])
        ids = torch.tensor([*prompt.input_ids.tolist(), *row["input_ids"]])[None]
        with torch.no_grad():
            logits = model(
                input_ids=ids,
                pixel_values=torch.from_numpy(prompt.pixel_values),
                image_grid_hws=torch.from_numpy(prompt.image_grid_hws),
            ).logits
        answer = torch.tensor(row["input_ids"])
        total += float(torch.nn.functional.cross_entropy(logits[0, -len(answer) - 1 : -1], answer, reduction="sum"))
        count += len(answer)
    [(_, values)] = train(config, "one")[1]
    assert values["loss"] == pytest.approx(total / count, rel=1e-3)  # Trainer logs four digits


def test_tasks_that_cannot_be_rendered_are_counted(processor, renderer):
    tasks = [
        Task(id="1", source="s", question="What?", answer="1"),
        Task(id="2", source="s", question="What?", answer="2", images=(b"no picture",)),
    ]
    collator = AnswerCollator(tasks, renderer, KimiVLConfig())
    batch = collator([{"example": 0, "input_ids": [5]}, {"example": 1, "input_ids": [6]}])
    assert batch["labels"].tolist() == [5]
    assert sum(collator.skipped.values()) == 1
    assert collator([{"example": 1, "input_ids": [6]}])["labels"].tolist() == [], "nothing to learn, and no error"
    hopeless = AnswerCollator([tasks[1]] * 2, renderer, KimiVLConfig())
    hopeless([{"example": 0, "input_ids": [6]}])
    with pytest.raises(UserError, match="none of the first 2 examples can be rendered"):
        hopeless([{"example": 1, "input_ids": [6]}])


class Stopped(Exception):
    pass


@pytest.fixture
def train(tmp_path, folder, processor, mixture):
    """Trains a fresh model; `name` is the checkpoints' folder, `stop` raises after that step."""

    def run(config, name, *, stop=None, longest=200, lora=None):
        model = load_model(folder)
        prepare_training(model, ModelConfig(lora=lora), base="made")
        renderer = PromptRenderer(processor, max_prompt_tokens=longest)
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
                checkpoint=newest_checkpoint(tmp_path / name),
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


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["weights", "adapters"])
def test_a_micro_batch_in_which_nothing_can_be_rendered_ends_nothing(processor, renderer, mixture, train, lora):
    """One example each: those longer than the middle one are left out."""
    config = config_of(steps=3, micro_batches=8)
    tasks, _ = build_examples(mixture, processor, config, seed=0)
    lengths = [len(renderer.render(task).input_ids) for task in tasks]
    longest = int(np.median(lengths))
    assert longest < max(lengths)
    logged = train(config, "few", longest=longest, lora=lora)[1]
    assert [step for step, _ in logged] == [1, 2, 3]
    assert all(np.isfinite(values["loss"]) for _, values in logged)


@pytest.mark.parametrize("damage", ["cut weights and no state", "an empty folder"])
def test_a_checkpoint_that_was_being_written_is_passed_over(train, tmp_path, damage):
    whole, logged = train(config_of(), "whole")
    train(config_of(), "cut", stop=3)
    broken = tmp_path / "cut" / "checkpoint-4"
    broken.mkdir()
    if damage == "cut weights and no state":
        weights = (tmp_path / "cut" / "checkpoint-2" / "weights.pt").read_bytes()
        (broken / "weights.pt").write_bytes(weights[: len(weights) // 2])
    resumed, rest = train(config_of(), "cut")
    assert [step for step, _ in rest] == [3, 4, 5, 6], "from the checkpoint of step 2"
    assert [v["loss"] for _, v in rest] == [v["loss"] for _, v in logged[2:]]
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_a_stopped_stage_goes_on_as_if_it_had_not(train):
    whole, logged = train(config_of(), "whole")
    train(config_of(), "cut", stop=5)
    resumed, rest = train(config_of(), "cut")
    assert [step for step, _ in rest] == [5, 6], "from the checkpoint of step 4"
    assert [v["loss"] for _, v in rest] == [v["loss"] for _, v in logged[4:]]
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
