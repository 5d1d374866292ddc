"""A whole run on a base in 4 bits: two supervised stages, RL with its proof of each weight sync, an export."""

import math

import pytest
import torch

from configs.model import LoraConfig, ModelConfig
from kimi_vl import load_model
from rl.learner.lora import load_adapters, merged_weights, prepare_training
from rl.learner.nf4 import quantize_base
from rl.run.trackers.jsonl_tracker import read_metrics

pytestmark = pytest.mark.timeout(600)
LORA = "model.lora={rank: 4, targets: [attention, mlp, experts], quantization: nf4}"
SHORT = ("instruct.steps=3", "long_cot.steps=2", "rl.steps=3", "rl.eval_every=1", "evaluation.tasks=4")


def stands_for(run, stage):
    """What the packed base of the run's first model and the adapters of a stage stand for together."""
    model = load_model(run / "base")
    quantize_base(model)
    lora = LoraConfig(rank=4, targets=("attention", "mlp", "experts"))
    prepare_training(model, ModelConfig(lora=lora), base="")
    load_adapters(model, run / stage / "adapter")
    return dict(merged_weights(model))


def different(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def test_a_run_on_a_base_in_4_bits(make_mini, tmp_path):
    pytest.importorskip("bitsandbytes", reason="pip install 'thinkvl[qlora]'")
    mini = make_mini(LORA, *SHORT)
    mini.here()
    run = mini.run_folder
    rows = read_metrics(run / "metrics.jsonl", stage="rl")
    assert len(rows) == 3
    assert all(math.isfinite(row[name]) for row in rows for name in ("reward", "loss", "grad_norm"))
    assert max(row["logprob_gap_max"] for row in rows[:1]) < 1e-4, "ratios begin at 1"
    weights = {name: load_model(run / name / "model").state_dict() for name in ("instruct", "long_cot", "rl")}
    for name, saved in weights.items():
        assert different(saved, stands_for(run, name)) == []
    assert different(weights["instruct"], weights["long_cot"])
    assert different(load_model(run / "export").state_dict(), weights["rl"]) == []
    assert all("lora_" in name or "e_score" in name for name in mini.learner()["model"])

    again = type(mini)(tmp_path / "again", [LORA, *SHORT])
    again.begin_before_rl(mini)
    assert "long_cot: already done" in again.here()
    resumed = load_model(again.run_folder / "rl" / "model").state_dict()
    assert different(resumed, weights["rl"]) == [], "another process packs the same numbers"
