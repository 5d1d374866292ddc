"""The vision tower's stage: retrieval rises over chance, a resume loses nothing, and only the tower changes."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rl_helpers import SIZES

from configs.data import SourceConfig
from configs.errors import UserError
from configs.model import LoraConfig, ModelConfig
from configs.optimizer import OptimizerConfig
from configs.ranks import RanksConfig
from configs.vit import ViTConfig
from kimi_vl import create_tiny_checkpoint, load_model, load_processor
from rewards.types import Task
from rl.metrics_table import EVALUATION, VIT, undeclared
from rl.run.console import PlainConsole
from rl.stages.vit_stage import CaptionRenderer, ViTStage
from rollouts.tasks.documents import Document
from rollouts.tasks.image_text import image_text, require_pairs
from rollouts.tasks.mixture import Mixture
from rollouts.tasks.prompts import BadPrompt, PromptRenderer

# One digit, or two with an operator between them: images of 28 and 84 pixels, in one batch.
DIGITS = {"options": {"scans": [1, 2], "operators": ["+"]}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return create_tiny_checkpoint(tmp_path_factory.mktemp("vit") / "tiny", corpus=["7+4", "11"] * 20, sizes=SIZES)


@pytest.fixture(scope="module")
def renderer(folder):
    return PromptRenderer(load_processor(folder), max_prompt_tokens=200)


@pytest.fixture(scope="module")
def captions():
    """The training mixture, and held-out pairs of other handwriting."""
    source = SourceConfig(use="digit_captions", **DIGITS)
    held_out = SourceConfig(use="digit_captions", split="held_out", **DIGITS)
    return Mixture([source], seed=3, base=None), Mixture([held_out], seed=1, base=None).fixed(48)


def config_of(*, steps=6, **more):
    optimizer = OptimizerConfig(name="muon", learning_rate=3e-3, warmup_steps=2)
    return ViTConfig(
        **{"steps": steps, "batch_size": 8, "text_layers": 1, "save_every": 2, "optimizer": optimizer, **more}
    )


class Stopped(Exception):
    pass


@pytest.fixture
def train(tmp_path, folder, renderer, captions):
    """Trains a fresh tower: (the model, what was logged, the figures); `stop` raises after that step."""

    def run(config, name, *, stop=None, **model):
        logged = []

        def on_step(stage, step, values):
            clock = ("/learner", "mfu")  # speed, and memory of this process
            logged.append((step, {k: v for k, v in values.items() if not k.endswith(clock)}))
            if step == stop:
                raise Stopped

        context = SimpleNamespace(
            config=SimpleNamespace(model=ModelConfig(**model), seed=0, threads=1),
            folder=SimpleNamespace(stage=lambda _: tmp_path / name),
            console=PlainConsole(quiet=True),
            copy_to_mirror=lambda: None,
            frozen_base=lambda path: path,
            metrics=SimpleNamespace(write=on_step),
            place_of=lambda _: "",
            inputs={"vit": SimpleNamespace(renderer=renderer, context=1024, pairs=captions[1])},
            examples=lambda _: captions[0],
            checkpoint=str(folder),
            processor=renderer.processor,
        )
        torch.manual_seed(0)
        stage = ViTStage(context, config, str(folder))
        stage.resume()
        if stop is None:
            return stage.run(), logged, stage.figures()
        with pytest.raises(Stopped):
            stage.run()
        return None, logged, None

    return run


def test_retrieval_rises_well_over_chance_and_only_the_tower_changes(folder, train):
    """48 held-out images in unseen handwriting; at random, recall at 1 is about one in 30 captions."""
    model, logged, figures = train(config_of(steps=150, batch_size=32, save_every=200), "whole")
    assert figures["pairs/digit_captions"] == 48
    for way in ("image_to_text", "text_to_image"):
        assert figures[f"before/{way}_1/digit_captions"] < 0.12
        assert figures[f"{way}_1/digit_captions"] > 0.25, figures
        assert figures[f"{way}_5/digit_captions"] > 0.6, figures
    values = [values for _, values in logged]
    assert values[-1]["loss"] < 0.5 * values[0]["loss"]
    assert not undeclared(set(values[0]), VIT)
    assert not undeclared(set(figures), EVALUATION)
    before, after = load_model(folder).state_dict(), model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys()
    assert moved
    assert all("vision_tower" in name for name in moved)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=2, targets=("vision",))], ids=["weights", "adapters"])
def test_a_stopped_stage_goes_on_as_if_it_had_not(train, lora):
    whole, logged, figures = train(config_of(), "whole", lora=lora)
    train(config_of(), "cut", stop=5, lora=lora)
    resumed, rest, same = train(config_of(), "cut", lora=lora)
    assert [step for step, _ in rest] == [5, 6], "from the checkpoint of step 4"
    assert [v for _, v in rest] == [v for _, v in logged[4:]]
    assert same == figures
    assert [n for n, tensor in whole.state_dict().items() if not torch.equal(tensor, resumed.state_dict()[n])] == []


def test_one_gradient_however_the_images_pass_the_tower(train):
    """All at once, or one at a time with the activations computed again."""
    whole, parts = (train(config_of(steps=1, micro_batch_tokens=n), f"b{n}")[1][0][1] for n in (16_384, 1))
    assert parts == pytest.approx(whole, rel=1e-4)


def test_a_tower_that_cannot_be_trained_is_refused(train):
    with pytest.raises(UserError, match=r"vit: nothing of the vision tower is trained; set vit.freeze to \[\]"):
        train(config_of(steps=1), "frozen", freeze=("vision_tower",))
    with pytest.raises(UserError, match="add `vision` to its targets"):
        train(config_of(steps=1), "adapters", lora=LoraConfig(rank=2))
    train(config_of(steps=1, freeze=()), "own", freeze=("vision_tower",))


def test_what_a_vit_stage_cannot_do_is_refused():
    for key, value in (
        ("ranks", RanksConfig(count=2)),
        ("balance_coef", 0.1),
        ("batch_size", 1),
        ("caption_coef", -1.0),
    ):
        with pytest.raises(ValueError, match=key):
            config_of(**{key: value})


def document(text, *images):
    return Document(id="d", source="made", text=text, images=images)


def task(answer, *images):
    return Task(id="t", source="asked", question="What?", answer=answer, images=images)


def test_pairs_are_documents_and_answers_with_one_image():
    assert image_text(document("<image> a cat\n", b"png")) == (b"png", "a cat")
    assert image_text(task("11", b"png")) == (b"png", "11")
    for example, reason in (
        (document("text alone"), "not one image"),
        (document("<image>one<image>two", b"1", b"2"), "not one image"),
        (document("<image> ", b"1"), "image without a caption"),
        (task("11"), "not one image"),
    ):
        with pytest.raises(BadPrompt) as error:
            image_text(example)
        assert error.value.reason == reason


def test_a_source_without_images_is_named_before_any_training():
    pair, text = document("<image>a", b"1"), task("11")
    require_pairs([pair], stage="vit", where="data.train")
    with pytest.raises(UserError, match=r"vit: asked in data.train: no example has one image and a caption"):
        require_pairs([pair, text], stage="vit", where="data.train")


def test_a_long_caption_is_cut_and_ends_with_the_end_token(renderer, captions):
    example = captions[1][0]
    long = Document(id="d", source="made", text="<image>" + "7+4" * 30, images=example.images)
    [made] = CaptionRenderer(renderer, config_of(max_tokens=8)).render([long], np.random.default_rng(0)).examples
    assert len(made.token_ids) == 8
    assert made.token_ids[-1] == renderer.processor.tokenizer.eos_token_id
    assert made.prompt.task.answer == "7+4" * 30
