"""Long-to-short stages with real workers: each method runs, and goes on after a kill in sampling or in training."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from kimi_vl import load_model
from rl.metrics_table import PREFERENCE, SUPERVISED, undeclared
from rl.rollout_log import RolloutLog, read_rollouts
from rl.run.trackers.jsonl_tracker import read_metrics
from rl.run.trackers.table import Metrics
from rl.stages import answer_sampling

pytestmark = pytest.mark.timeout(900)

OPTIMIZER = "optimizer: {name: muon, learning_rate: 1e-3}"
SAMPLED = f"kind: long2short, prompts: 8, samples: 4, steps: 3, batch_size: 4, save_every: 1, {OPTIMIZER}"
STAGES = f"""stages=[
    {{kind: sft, name: instruct, steps: 40, batch_size: 8, optimizer: {{name: muon, learning_rate: 5e-3}}}},
    {{{SAMPLED}, name: preferred, method: dpo}},
    {{{SAMPLED}, name: shorter, method: shortest}},
    {{kind: long2short, name: merged, method: average, short_model: instruct, weight: 0.25}},
]"""
ROWS = "[{use: rows.jsonl, columns: {images: picture}}]"
SHORT = ("evaluation.tasks=4", "evaluation.max_new_tokens=8", "export=false")
DATA = (f"data.train={ROWS}", f"data.held_out={ROWS}", "data.verifiers=[even.py:even]")


@pytest.fixture
def make(make_mini, tmp_path, monkeypatch):
    monkeypatch.setattr(answer_sampling, "BATCH", 4)

    def build(name):
        made = make_mini(STAGES, *SHORT, *DATA, f"output_dir=runs/{name}")
        made.name = name
        rng = np.random.default_rng(0)
        rows = []
        for i in range(12):
            shape = (28, 28 * (1 + i % 3), 3)
            Image.fromarray(rng.integers(0, 255, shape, dtype=np.uint8)).save(made.folder / f"{i}.png")
            question, verifier = f"How much is {i}?", "even.py:even"
            rows.append(
                {"question": question, "answer": "1" * (1 + i % 4), "verifier": verifier, "picture": f"{i}.png"}
            )
        (made.folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        # A coin that everybody can toss: about half of what an untrained model writes is right.
        (made.folder / "even.py").write_text(
            "def even(response, reference, *, task):\n    return float(sum(map(ord, response)) % 2 == 0)\n"
        )
        return made, made.folder / "runs" / name

    return build


class Killed(Exception):
    pass


def weights(folder, stage):
    return load_model(folder / stage / "model").state_dict()


@pytest.mark.chaos  # many invocations
def test_each_method_runs_and_a_killed_run_ends_in_the_same_weights(make, monkeypatch):
    mini, whole = make("whole")
    printed = mini.here()
    assert "shorter: the entering model has greedy" in printed
    stages = {s["name"]: s for s in json.loads((whole / "summary.json").read_text())["stages"]}
    for name in ("shorter", "preferred", "merged"):
        assert stages[name]["kind"] == "long2short"
        assert stages[name]["figures"].keys() == {"before/greedy_accuracy", "before/mean_tokens"}
    assert stages["preferred"]["figures"]["before/mean_tokens"] == stages["instruct"]["mean_tokens"]
    assert (whole / "lengths.png").exists()
    assert "merged: greedy" in printed, "before and after, at the end"
    assert len(list(read_rollouts(whole / "shorter" / "rollouts"))) == 8 * 4
    for name, table in (("shorter", SUPERVISED), ("preferred", PREFERENCE)):
        rows = read_metrics(whole / "metrics.jsonl", stage=name)
        assert [row["step"] for row in rows] == [1, 2, 3]
        assert not undeclared(rows[0].keys() - {"stage", "step", "time"}, table)
    long, short, merged = (weights(whole, name) for name in ("shorter", "instruct", "merged"))
    assert all(torch.allclose(merged[name], 0.75 * long[name] + 0.25 * short[name], atol=1e-6) for name in merged)

    mini, cut = make("cut")
    write_log, write_metrics = RolloutLog.write, Metrics.write

    def stop_sampling(log, step, *rest):
        if step == 2 and log.folder.parent.name == "preferred":
            raise Killed
        write_log(log, step, *rest)

    def stop_training(stage):
        def write(metrics, name, step, values):
            write_metrics(metrics, name, step, values)
            if (name, step) == (stage, 3):
                raise Killed

        return write

    for owner, method, replaced in (
        (RolloutLog, "write", stop_sampling),
        (Metrics, "write", stop_training("preferred")),
        (Metrics, "write", stop_training("shorter")),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, replaced)
            with pytest.raises(Killed):
                mini.here()
    printed = mini.here()
    assert "shorter: samples" not in printed, "what was sampled is not sampled again"
    assert "resuming shorter after step 2" in printed
    for name in ("shorter", "preferred", "merged"):
        expected, found = weights(whole, name), weights(cut, name)
        assert [key for key in expected if not torch.equal(expected[key], found[key])] == [], name
