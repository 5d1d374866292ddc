"""`thinkvl curate` and `thinkvl build-cot` with real Ray workers: a tiny model, and an engine in a file of the user."""

import errno
import io
import json

import pyarrow.parquet as pq
import pytest

from configs.data import DataConfig, SourceConfig
from configs.rl import SamplingConfig
from kimi_vl import TinySizes, create_tiny_checkpoint
from rl.cli.open_model import find_model
from rl.curation.build_cot import CotOptions, build_cot_command
from rl.curation.curate import CurateOptions, curate_command
from rl.curation.generators import DIRECT, Drawing, ModelPlan, open_pool
from rl.curation.inputs import DataOptions
from rl.curation.model_options import SamplingOptions
from rl.curation.sample_log import SampleLog
from rl.run.console import PlainConsole
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.prompts import target_text

pytestmark = pytest.mark.usefixtures("_cluster")

SOLVER = '''
import numpy as np

from rollouts.engines.protocol import Engine
from rollouts.model_family import family_at
from rollouts.types import Completion, Segment

class Solver(Engine):
    """Thinks and is right in every second sample."""

    fixed_weights = True
    version = 0

    def __init__(self, spec, *, thought):
        self.tokenizer = family_at(spec.model_path).load_processor(spec.model_path).tokenizer
        self.thought, self.groups = thought, []

    def start_load(self, shapes):
        raise ValueError("fixed")

    load_weights = finish_load = start_load

    def add(self, index, request, sampling):
        texts = [request.prompt.task.answer if i % 2 else "no" for i in range(request.n)]
        self.groups.append((index, [self.completion(f"◁think▷{self.thought}◁/think▷{text}") for text in texts]))

    def step(self):
        done, self.groups = self.groups, []
        return done

    def cancel(self, indices):
        return []

    def completion(self, text):
        ids = np.array(self.tokenizer.encode(text, add_special_tokens=False))
        zeros = np.zeros(len(ids), np.float32)
        segments = (Segment(start=0, stop=len(ids), version=0),)
        return Completion(
            token_ids=ids, policy_logprobs=zeros, sampler_logprobs=zeros, finish_reason="stop", segments=segments
        )
'''
RECIPE = """
name: my
output_dir: runs/my
data:
  train: [{use: digit_sums, options: {scans: [2]}}]
  held_out: [{use: digit_sums, split: held_out, options: {scans: [2]}}]
stages:
  - {kind: rl, steps: 1, workers: 1, engine: 'solver.py:Solver', engine_options: {thought: 'First, I add.'},
     loss: {algorithm: grpo}}
evaluation: {tasks: 20}
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    text = ["What is the result? ◁think▷7 + 4 = 11◁/think▷11", "First, I add. 3 * 4 = 12; 12 - 5 = 7"]
    sizes = TinySizes(
        hidden_size=48, num_hidden_layers=2, moe_intermediate_size=32, intermediate_size=64, n_routed_experts=4,
        vision_hidden_size=48, num_merges=60, max_position_embeddings=512,
    )  # fmt: skip
    return create_tiny_checkpoint(tmp_path_factory.mktemp("curation") / "tiny", corpus=text, sizes=sizes)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def curate(model, output, **more):
    """The table of the set without its provenance, and what was printed."""
    options = CurateOptions(
        output=output,
        data=DataOptions(data="digit_sums", limit=40),
        model=SamplingOptions(model=str(model), workers=1, max_new_tokens=4),
        samples=2,
        guesses=2,
        pass_rates=(0, 1),
        **more,
    )
    printed = io.StringIO()
    curate_command(options, PlainConsole(file=printed, width=120))
    return pq.read_table(output).drop_columns("provenance"), printed.getvalue()


def test_a_tiny_model_labels_prompts_and_goes_on_after_a_full_disk(model, tmp_path, monkeypatch):
    whole, printed = curate(model, tmp_path / "whole.parquet")
    assert "guesses      2/2" in printed
    lines = (tmp_path / "whole.samples.jsonl").read_text().splitlines()
    blocks = [json.loads(line)["block"].partition("/")[0] for line in lines[1:]]
    assert blocks == ["guesses", "guesses", "samples", *["samples"] * (len(blocks) - 3)]
    append, kept = SampleLog.append, []

    def full(self, name, rows):
        if len(kept) == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(self.path))
        kept.append(name)
        append(self, name, rows)

    monkeypatch.setattr(SampleLog, "append", full)
    with pytest.raises(OSError, match="No space left"):
        curate(model, tmp_path / "resumed.parquet")
    drawn = []
    monkeypatch.setattr(SampleLog, "append", lambda self, name, rows: (drawn.append(name), append(self, name, rows)))
    resumed, _ = curate(model, tmp_path / "resumed.parquet")
    assert not set(drawn) & set(kept)
    assert len(drawn) == len(blocks) - 3
    assert resumed.equals(whole)


def test_an_answer_without_thinking_follows_an_empty_think_block(model, tmp_path):
    data = DataConfig(train=(SourceConfig(use="digit_sums"),))
    plan = ModelPlan(
        place=find_model(str(model)),
        data=data,
        dtype=None,
        engine="transformers",
        options={},
        context=300,
        workers=1,
        failures=tmp_path / "failures",
    )
    tasks = TaskMixture(data.train, seed=0, base=tmp_path).fixed(3)
    drawing = Drawing(n=2, sampling=SamplingConfig(max_new_tokens=5), direct=DIRECT)
    with open_pool(plan, lambda line: None) as generator:
        groups = generator.generate(tasks, [1, 2, 3], drawing)
        again = generator.generate(tasks, [1, 2, 3], drawing)
        thinking = generator.generate(tasks, [1, 2, 3], Drawing(n=2, sampling=drawing.sampling))
    drafts = [draft for group in groups for draft in group]
    assert len(drafts) == 6
    assert all(draft.text.startswith("◁think▷◁/think▷") for draft in drafts)
    assert all(1 <= draft.tokens <= 5 for draft in drafts)
    assert again == groups
    assert not any(draft.text.startswith("◁think▷◁/think▷") for group in thinking for draft in group)


def test_an_engine_of_ones_own_makes_a_long_cot_set(model, tmp_path):
    (tmp_path / "solver.py").write_text(SOLVER, encoding="utf-8")
    (tmp_path / "my.yaml").write_text(RECIPE, encoding="utf-8")
    options = CotOptions(
        output=tmp_path / "cot.parquet",
        data=DataOptions(data="my.yaml", limit=12),
        model=SamplingOptions(model=str(model)),
        samples=4,
    )
    printed = io.StringIO()
    build_cot_command(options, PlainConsole(file=printed, width=120))
    rows = pq.read_table(tmp_path / "cot.parquet").to_pylist()
    assert len(rows) == 12
    assert {(row["solution"], row["difficulty"]) for row in rows} == {("First, I add.", 0.5)}
    assert all(row["patterns"]["planning"] == 1 for row in rows)
    tasks = TaskMixture([SourceConfig(use="cot.parquet")], seed=0, base=tmp_path).fixed(12)
    assert all(
        task.images and target_text(task, thinking=True).startswith("◁think▷First, I add.◁/think▷") for task in tasks
    )
    report = json.loads((tmp_path / "cot.report.json").read_text())
    assert report["samples_by_outcome"]["kept"] == 12
    assert sum(report["samples_by_outcome"].values()) == 48
