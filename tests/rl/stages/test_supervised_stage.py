"""Supervised stages: what is trained on, one gradient however a step is cut, and a resume that loses nothing."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rl_helpers import SIZES

from configs.data import SourceConfig
from configs.errors import UserError
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from configs.supervised import SFTConfig
from kimi_vl import create_tiny_checkpoint, load_model, load_processor
from rewards.types import Task
from rl.checkpoint import list_checkpoints
from rl.run.console import PlainConsole
from rl.stages.example_batches import ExampleBatches, ExampleRenderer
from rl.stages.supervised_stage import SupervisedStage
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


def config_of(*, steps=6, budget=16_384, **more):
    return SFTConfig(
        steps=steps,
        batch_size=8,
        micro_batch_tokens=budget,
        thinking_share=0.5,
        save_every=2,
        optimizer=OptimizerConfig(name="muon", learning_rate=2e-3, warmup_steps=2),
        **more,
    )


@pytest.fixture
def batches(renderer, mixture):
    """The batches of a stage."""

    def make(config, *, seed=0, renderer=renderer, mixture=mixture):
        return ExampleBatches(mixture, ExampleRenderer(renderer, config), config, seed=seed)

    return make


def test_an_answer_with_and_without_thinking():
    task = Task(id="1", source="s", question="?", answer="11", solution="7+4=11")
    assert target_text(task, thinking=False) == "11"
    assert target_text(task, thinking=True) == "◁think▷7+4=11◁/think▷11"


def test_half_of_the_answers_think_and_the_seed_says_which(processor, mixture, batches):
    config, thinking = config_of(), 0
    for step, batch in enumerate(batches(config).from_step(0, say=print)):
        tasks = mixture.draw(step, 8)
        assert [example.prompt.task.id for example in batch] == [task.id for task in tasks]
        assert len({example.id for example in batch}) == 8
        for example, task in zip(batch, tasks, strict=True):
            text = processor.tokenizer.decode(example.token_ids)
            assert text in [target_text(task, thinking=t) + "<|im_end|>" for t in (False, True)]
            thinking += "◁think▷" in text
    assert step == 5
    assert 14 <= thinking <= 34, "about half of 48"

    def tokens(seed, start):
        return [e.token_ids.tolist() for batch in batches(config, seed=seed).from_step(start, say=print) for e in batch]

    assert tokens(0, 0)[24:] == tokens(0, 3), "a step's examples depend on the seed and the step alone"
    assert tokens(0, 0) != tokens(1, 0)


def test_prompts_are_those_that_rl_sees_and_only_answers_are_trained(renderer, mixture, batches):
    for example, task in zip(batches(config_of()).batch(0).examples, mixture.draw(0, 8), strict=True):
        prompt = renderer.render(task)
        assert example.prompt.input_ids.tolist() == prompt.input_ids.tolist()
        assert np.array_equal(example.prompt.pixel_values, prompt.pixel_values)
        assert example.trainable_tokens == len(example.token_ids)


def test_examples_that_cannot_be_rendered_are_counted(renderer):
    tasks = [
        Task(id="1", source="s", question="What?", answer="1"),
        Task(id="2", source="s", question="What?", answer="2", images=(b"no picture",)),
        Task(id="3", source="s", question="What?", answer="3" * 90),
    ]
    found = ExampleRenderer(renderer, config_of(max_tokens=80)).render(tasks, np.random.default_rng(0))
    assert [example.id for example in found.examples] == ["1"]
    assert found.skipped == {"not an image that Pillow reads": 1, "example longer than 80 tokens": 1}


def test_a_stage_of_which_nothing_can_be_rendered_ends(batches):
    bad = Task(id="2", source="s", question="What?", answer="2", images=(b"no picture",))
    mixture = SimpleNamespace(draw=lambda step, n: [bad] * n)
    upcoming = batches(config_of(steps=40), mixture=mixture).from_step(0, say=print)
    assert [next(upcoming) for _ in range(31)] == [[]] * 31
    with pytest.raises(UserError, match=r"^none of the first 256 examples can be rendered: .*not an image"):
        next(upcoming)


class Stopped(Exception):
    pass


@pytest.fixture
def train(tmp_path, folder, renderer, mixture):
    """Trains a fresh model; `name` is the stage's folder, `stop` raises after that step."""

    def run(config, name, *, stop=None, examples=mixture, lora=None, freeze=()):
        logged = []

        def on_step(stage, step, values):
            clock = ("/learner", "mfu")  # speed, and memory of this process
            logged.append((step, {k: v for k, v in values.items() if not k.endswith(clock)}))
            if step == stop:
                raise Stopped

        context = SimpleNamespace(
            config=SimpleNamespace(model=ModelConfig(lora=lora, freeze=freeze), seed=0, threads=1),
            folder=SimpleNamespace(stage=lambda _: tmp_path / name),
            console=PlainConsole(quiet=True),
            metrics=SimpleNamespace(write=on_step),
            place_of=lambda _: "",
            inputs={"sft": SimpleNamespace(renderer=renderer, context=1024)},
            examples=lambda _: examples,
            checkpoint=str(folder),
            barred_ids=(),
            copy_to_mirror=lambda: None,
            frozen_base=lambda path: path,
        )
        torch.manual_seed(0)
        stage = SupervisedStage(context, config, str(folder))
        stage.resume()
        if stop is None:
            return stage.run().state_dict(), logged
        with pytest.raises(Stopped):
            stage.run()
        return None, logged

    return run


def test_the_loss_is_the_likelihood_of_the_answers(folder, batches, train):
    """One step, against the model's own forward pass on one example after the other."""
    config = config_of(steps=1)
    model, total, count = load_model(folder), 0.0, 0
    for example in batches(config).batch(0).examples:
        ids = torch.tensor([*example.prompt.input_ids.tolist(), *example.token_ids.tolist()])[None]
        with torch.no_grad():
            logits = model(
                input_ids=ids,
                pixel_values=torch.from_numpy(example.prompt.pixel_values),
                image_grid_hws=torch.from_numpy(example.prompt.image_grid_hws),
            ).logits
        answer = torch.from_numpy(example.token_ids)
        total += float(torch.nn.functional.cross_entropy(logits[0, -len(answer) - 1 : -1], answer, reduction="sum"))
        count += len(answer)
    [(_, values)] = train(config, "one")[1]
    assert values["loss"] == pytest.approx(total / count, rel=1e-5)
    assert values["loss/digit_sums"] == values["loss"]
    assert values["tokens"] == count


def test_one_gradient_whatever_the_micro_batches(train):
    """By token over the whole step: the loss and the gradient's norm are the same for 1, several and 8 passes."""
    runs = [train(config_of(steps=1, budget=budget), f"b{budget}")[1] for budget in (16_384, 150, 1)]
    for [(_, values)] in runs[1:]:
        assert values["loss"] == pytest.approx(runs[0][0][1]["loss"], rel=1e-5)
        assert values["grad_norm"] == pytest.approx(runs[0][0][1]["grad_norm"], rel=1e-4)


def test_every_step_is_reported(train):
    logged = train(config_of(steps=4), "a")[1]
    assert [step for step, _ in logged] == [1, 2, 3, 4]
    assert [v["learning_rate"] for _, v in logged] == pytest.approx([2e-3 / 3, 4e-3 / 3, 2e-3, 2e-3])
    assert all(v["skipped_updates"] == 0 for _, v in logged)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["weights", "adapters"])
def test_a_step_in_which_nothing_can_be_rendered_ends_nothing(mixture, train, lora):
    bad = Task(id="2", source="s", question="What?", answer="2", images=(b"no picture",))
    examples = SimpleNamespace(draw=lambda step, n: [bad] * n if step == 1 else mixture.draw(step, n))
    logged = train(config_of(steps=3), "few", examples=examples, lora=lora)[1]
    assert [values["tokens"] > 0 for _, values in logged] == [True, False, True]
    assert logged[1][1]["grad_norm"] == 0
    assert all(np.isfinite(values["loss"]) for _, values in logged)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2)], ids=["weights", "adapters"])
def test_a_stopped_stage_goes_on_as_if_it_had_not(train, lora):
    whole, logged = train(config_of(), "whole", lora=lora)
    train(config_of(), "cut", stop=5, lora=lora)
    resumed, rest = train(config_of(), "cut", lora=lora)
    assert [step for step, _ in rest] == [5, 6], "from the checkpoint of step 4"
    assert [v for _, v in rest] == [v for _, v in logged[4:]]
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


ALIGNED = ("language_model", "lm_head")  # what the alignment phase of Kimi-VL §2.3.1 leaves alone
TOWER = LoraConfig(rank=2, targets=("vision",))


@pytest.mark.parametrize(("lora", "trained"), [(None, ("vision_tower", "mm_projector")), (TOWER, ("vision_tower",))])
def test_the_tower_is_aligned_through_a_frozen_language_model_and_resumes(folder, mixture, train, lora, trained):
    """The stage's own `freeze` replaces the recipe's, which freezes the tower. All steps have the same examples."""
    options = {"lora": lora, "freeze": ("vision_tower",)}
    options["examples"] = SimpleNamespace(draw=lambda step, n: mixture.draw(0, n))
    optimizer = OptimizerConfig(learning_rate=3e-3)
    config = replace(config_of(freeze=ALIGNED), thinking_share=0.0, optimizer=optimizer)
    whole, logged = train(config, "whole", **options)
    train(config, "cut", stop=5, **options)
    resumed, _ = train(config, "cut", **options)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
    assert all(values["grad_norm"] > 0 for _, values in logged)
    assert logged[-1][1]["loss"] < logged[0][1]["loss"], "gradients reach the tower, and help"
    before = load_model(folder).state_dict()
    moved = [name for name in whole if name in before and not torch.equal(whole[name], before[name])]
    moved += [name for name in whole if "lora_B" in name and whole[name].any()]
    assert {part for part in ("vision_tower", "mm_projector") if any(part in name for name in moved)} == set(trained)
    assert [name for name in moved if not any(part in name for part in trained)] == []


def test_a_freeze_of_unknown_names_or_of_everything_is_refused(train):
    with pytest.raises(UserError, match="freeze: no parameter's name holds 'visoin'"):
        train(config_of(freeze=("visoin",)), "unknown")
    with pytest.raises(UserError, match="nothing is left to train"):
        train(config_of(freeze=("model", "lm_head")), "all")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_checkpoint_is_passed_over(train, tmp_path, damage):
    whole, logged = train(config_of(), "whole")
    train(config_of(), "cut", stop=5)
    newest = list_checkpoints(tmp_path / "cut" / "checkpoints")[-1]
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes({"cut": bytes(data[: len(data) // 2]), "flipped": bytes(data), "empty": b""}[damage])
    resumed, rest = train(config_of(), "cut")
    assert [step for step, _ in rest] == [3, 4, 5, 6], "from the checkpoint of step 2"
    assert [v for _, v in rest] == [v for _, v in logged[2:]]
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []
