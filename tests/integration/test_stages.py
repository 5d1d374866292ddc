"""Stages are a list: several of a kind, in any order, each with data of its own; a new kind is a class and a line."""

import json
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest
import torch
from safetensors.torch import load_file

from configs import keys, stage_kinds
from configs.load import _adapter, load_recipe
from configs.stage import StageConfig
from rl.run.context import load_policy
from rl.run.trackers.jsonl_tracker import read_metrics

pytestmark = pytest.mark.timeout(600)

OWN = "{train: [{use: digit_sums, options: {scans: [3]}}], held_out: [{use: rows.jsonl}]}"
RL = "kind: rl, prompts_per_step: 2, samples_per_prompt: 2, sampling: {max_new_tokens: 6}, loss: {algorithm: grpo}"
STAGES = f"""stages=[
    {{{RL}, name: first, steps: 2, eval_every: 1, length_reward: {{weight: 0.1, warmup_steps: 1}}}},
    {{kind: sft, name: middle, steps: 2, batch_size: 4, data: {OWN}}},
    {{{RL}, name: second, steps: 3, rewards: [{{use: format}}]}},
]"""
SHORT = ("evaluation.tasks=4", "evaluation.validation_tasks=2", "evaluation.max_new_tokens=6", "export=false")


@pytest.fixture
def mini(make_mini):
    made = make_mini(STAGES, *SHORT)
    rows = [{"id": f"row-{i}", "question": f"How much is {i}?", "answer": str(i)} for i in range(3)]
    (made.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return made


def test_two_rl_stages_around_an_sft_stage_with_its_own_data(mini):
    mini.here()
    summary = json.loads((mini.run_folder / "summary.json").read_text())
    assert [(s["name"], s["kind"]) for s in summary["stages"]] == [("first", "rl"), ("middle", "sft"), ("second", "rl")]
    file = mini.run_folder / "metrics.jsonl"
    assert [row["step"] for row in read_metrics(file, stage="validation/first")] == [0, 1, 2]
    tasks = {name: read_metrics(file, stage=f"held_out/{name}")[0]["tasks"] for name in ("first", "middle", "second")}
    assert tasks == {"first": 4, "middle": 3, "second": 4}, "the stage between has three tasks of its own"
    rewards = [set(read_metrics(file, stage=name)[0]) for name in ("first", "second")]
    assert "reward/verifier" in rewards[0]
    assert "reward/verifier" not in rewards[1]
    assert "reward/format" in rewards[1]
    lengths = ["reward/length" in row for row in read_metrics(file, stage="first")]
    assert lengths == [False, True], "the length reward's warm-up"
    printed = mini.here()
    assert [f"{name}: already done" in printed for name in tasks] == [True] * 3
    with pytest.raises(Exception, match="stages: 'first -> middle -> second' there, 'first -> middle' now"):
        mini.here("second=null")


DOCUMENTS = """stages=[{kind: pretrain, steps: 2, batch_size: 6, save_every: 1, data: {
    train: [{use: digit_captions, weight: 1, final_weight: 3}, {use: text_sums, options: {form: document}},
            {use: texts.jsonl, columns: {text: words}, weight: 0.5}, {use: digit_sums}],
    held_out: [{use: digit_sums, split: held_out}, {use: digit_captions, split: held_out},
               {use: texts.jsonl, columns: {text: words}}]}}]"""


def test_a_pretraining_stage_takes_documents_and_tasks_and_reports_perplexity(mini):
    texts = [{"id": f"text-{i}", "words": f"The number {i} stands here."} for i in range(4)]
    (mini.folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    mini.overrides[0] = DOCUMENTS
    mini.overrides[1] = "evaluation.tasks=12"
    mini.here()
    [stage] = json.loads((mini.run_folder / "summary.json").read_text())["stages"]
    assert (stage["name"], stage["kind"]) == ("pretrain", "pretrain")
    assert sorted(stage["figures"]) == ["perplexity/digit_captions", "perplexity/texts"]
    assert all(1 < value < 10_000 for value in stage["figures"].values()), stage["figures"]
    assert 0 <= stage["greedy_accuracy"] <= 1, "the held-out tasks are answered, too"
    rows = read_metrics(mini.run_folder / "metrics.jsonl", stage="pretrain")
    sources = {name for row in rows for name in row if name.startswith("loss/")}
    assert sources == {"loss/digit_captions", "loss/text_sums", "loss/texts", "loss/digit_sums"}
    with pytest.raises(Exception, match="digit_captions has documents, without questions and answers"):
        mini.here("output_dir=runs/other", f"pretrain={{{RL}, steps: 1, data: {{train: [{{use: digit_captions}}]}}}}")


CAPTIONS = "data: {train: [{use: digit_captions}], held_out: [{use: digit_captions, split: held_out}]}"


def test_a_pretraining_stage_whose_held_out_sources_have_documents_generates_nothing(mini):
    """The tower is aligned: its figure is the perplexity of the captions, before and after."""
    aligned = f"kind: pretrain, steps: 2, batch_size: 4, {CAPTIONS}"
    mini.overrides[0] = f"stages=[{{{aligned}}}, {{{aligned}, name: alignment, freeze: [language_model, lm_head]}}]"
    printed = mini.here()
    stages = json.loads((mini.run_folder / "summary.json").read_text())["stages"]
    assert [sorted(stage["figures"]) for stage in stages] == [["perplexity/digit_captions"]] * 2
    assert all(math.isnan(stage[name]) for stage in stages for name in ("greedy_accuracy", "mean_tokens"))
    assert "alignment: perplexity/digit_captions" in printed
    assert "nan" not in printed
    [held] = read_metrics(mini.run_folder / "metrics.jsonl", stage="held_out/alignment")
    assert set(held) == {"stage", "step", "time", "perplexity/digit_captions"}
    text = {name: (mini.run_folder / name / "model" / "model.safetensors") for name in ("pretrain", "alignment")}
    before, after = (load_file(path) for path in text.values())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not [name for name in moved if name.startswith(("language_model", "lm_head"))]
    with pytest.raises(Exception, match=r"data.held_out: all sources have documents; list at least one with"):
        mini.here("output_dir=runs/other", f"stages=[{{kind: sft, steps: 1, {CAPTIONS}}}]")


def test_a_vision_tower_is_trained_alone_and_then_aligned(mini):
    """The tower changes first; then it, and the projector. The language model stays, and nothing is generated."""
    first = f"{{kind: vit, steps: 2, batch_size: 4, text_layers: 1, {CAPTIONS}}}"
    second = f"{{kind: pretrain, name: alignment, steps: 2, freeze: [language_model, lm_head], {CAPTIONS}}}"
    mini.overrides[0] = f"stages=[{first}, {second}]"
    mini.here()
    stages = json.loads((mini.run_folder / "summary.json").read_text())["stages"]
    assert [stage["kind"] for stage in stages] == ["vit", "pretrain"]
    figures = stages[0]["figures"]
    recall = {f"{way}_{k}/digit_captions" for way in ("image_to_text", "text_to_image") for k in (1, 5)}
    assert figures.keys() == {name for own in (*recall, "pairs/digit_captions") for name in (own, f"before/{own}")} | {
        "perplexity/digit_captions"
    }
    assert figures["pairs/digit_captions"] == 4
    assert all(math.isnan(stage["greedy_accuracy"]) for stage in stages)
    folders = (mini.run_folder / "base", *(mini.run_folder / stage["name"] / "model" for stage in stages))
    weights = [load_file(folder / "model.safetensors") for folder in folders]
    for before, after, parts in zip(
        weights[:2], weights[1:], (("vision_tower",), ("vision_tower", "multi_modal_projector")), strict=True
    ):
        moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert moved == set(parts)
    with pytest.raises(Exception, match=r"vit: text_sums in data.train: no example has one image and a caption"):
        mini.here("output_dir=runs/other", "vit.data.train.1={use: text_sums, options: {form: document}}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyConfig(StageConfig):
    """A kind of stage that only this test knows."""

    kind: Literal["copy"] = "copy"
    times: int = 1
    MAY_CHANGE: ClassVar[frozenset[str]] = frozenset({"times"})


class CopyStage:
    """Trains nothing: the model that it ends with is the one that it got."""

    def __init__(self, context, config, model_path):
        self._context, self._config, self._model_path = context, config, model_path

    def resume(self):
        return 0

    def run(self):
        self._context.metrics.write(self._config.name, 1, {"loss": float(self._config.times)})
        return load_policy(self._context, self._model_path).eval()

    def figures(self):
        return {}

    def close(self):
        pass


def test_a_new_kind_is_a_class_and_a_line(mini, monkeypatch):
    """What CONTRIBUTING.md promises: the recipe, the overrides, the run and the errors know it from the table alone."""
    monkeypatch.setitem(stage_kinds.STAGE_KINDS, "copy", stage_kinds.StageKind(CopyConfig, f"{__name__}:CopyStage"))
    for cache in (_adapter, keys.schema_keys):
        cache.cache_clear()
    try:
        mini.overrides[0] = "stages=[{kind: sft, steps: 1, batch_size: 2}, {kind: copy}]"
        mini.here("copy.times=3")
        weights = [(mini.run_folder / name / "model" / "model.safetensors").read_bytes() for name in ("sft", "copy")]
        assert weights[0] == weights[1]
        assert read_metrics(mini.run_folder / "metrics.jsonl", stage="copy")[0]["loss"] == 3.0
        with pytest.raises(Exception, match=r"copy\.tmies: no such key; did you mean copy\.times"):
            load_recipe(mini.folder / "mini.yaml", [*mini.overrides, "copy.tmies=3"])
    finally:
        monkeypatch.undo()
        for cache in (_adapter, keys.schema_keys):
            cache.cache_clear()
