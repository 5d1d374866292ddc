"""What a supervised stage holds in memory does not grow with its steps, nor with its data set."""

import io
import multiprocessing
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from rl_helpers import SIZES

from configs.data import SourceConfig
from configs.model import ModelConfig
from configs.optimizer import OptimizerConfig
from configs.supervised import SFTConfig
from kimi_vl import create_tiny_checkpoint, load_processor
from rewards.types import Task
from rl.run.console import PlainConsole
from rl.stages.example_batches import ExampleBatches, ExampleRenderer
from rl.stages.prefetch import STEPS_AHEAD
from rl.stages.supervised_stage import SupervisedStage
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import PromptRenderer

STEPS = 200
ROWS = 100_000
SIDE = 112  # pixels of a picture: 64 patches, 150 kB as the model reads them

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return create_tiny_checkpoint(tmp_path_factory.mktemp("memory") / "tiny", corpus=["What is it? 1"] * 9, sizes=SIZES)


@pytest.fixture(scope="module")
def renderer(folder):
    return PromptRenderer(load_processor(folder), max_prompt_tokens=200)


def png(seed, side):
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def resident(pid: int | str | None = "self"):
    """MB of a process that nobody else has: its own copies."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def config_of(steps):
    return SFTConfig(steps=steps, batch_size=2, save_every=1000, optimizer=OptimizerConfig(learning_rate=1e-3))


def test_memory_is_flat_over_200_steps_of_images(tmp_path, folder, renderer):
    """All steps together have 60 MB of patches."""
    own, helper = [], []

    def draw(step, n):
        return [
            Task(id=f"{step}/{i}", source="s", question="What?", answer="1", images=(png(n * step + i, SIDE),))
            for i in range(n)
        ]

    def on_step(stage, step, values):
        own.append(resident())
        for child in multiprocessing.active_children():
            helper.append(resident(child.pid))

    context = SimpleNamespace(
        config=SimpleNamespace(model=ModelConfig(), seed=0, threads=1),
        folder=SimpleNamespace(stage=lambda _: tmp_path / "sft"),
        console=PlainConsole(quiet=True),
        metrics=SimpleNamespace(write=on_step),
        place_of=lambda _: "",
        copy_to_mirror=lambda: None,
        frozen_base=lambda path: path,
        inputs={"sft": SimpleNamespace(renderer=renderer, context=1024)},
        examples=lambda _: SimpleNamespace(draw=draw),
        barred_ids=(),
        checkpoint=str(folder),
    )
    SupervisedStage(context, config_of(STEPS), str(folder)).run()
    assert len(own) == STEPS
    for found in (own, helper):
        assert max(found[-50:]) - max(found[25:75]) < 12


def test_of_100_000_examples_only_those_of_the_next_steps_are_drawn(tmp_path, renderer, monkeypatch):
    pictures = [png(seed, 8) for seed in range(8)]
    rows = {
        "question": [f"What is {i} + 1?" for i in range(ROWS)],
        "answer": [str(i + 1) for i in range(ROWS)],
        "images": [[pictures[i % 8]] for i in range(ROWS)],
    }
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    mixture = TaskMixture([SourceConfig(use="rows.parquet")], seed=0, base=tmp_path)
    [source] = mixture.sources
    assert len(source) == ROWS
    drawn, make = multiprocessing.Value("i", 0), source.task

    def task(index, seed):
        drawn.value += 1
        return make(index, seed)

    monkeypatch.setattr(source, "task", task)
    config, before = config_of(ROWS), resident()
    steps = ExampleBatches(mixture, ExampleRenderer(renderer, config), config, seed=0).from_step(0, say=print)
    batch = next(steps)
    assert len(batch) == 2
    assert drawn.value <= 2 * (1 + STEPS_AHEAD + 1)
    for _ in range(50):
        next(steps)
    assert drawn.value <= 2 * (51 + STEPS_AHEAD + 1)
    assert resident() - before < 12
    steps.close()
