"""A long-context stage with real workers: the new RoPE base and context reach the engines, every later stage and the
export, and a run that was killed in it ends in the same weights."""

import json

import pytest
import torch

from kimi_vl import load_model
from kimi_vl.family import load_config, load_processor
from rl.metrics_table import EVALUATION, SUPERVISED, undeclared
from rl.run import needle
from rl.run.rollout_workers import RolloutWorkers
from rl.run.trackers.jsonl_tracker import read_metrics
from rl.run.trackers.table import Metrics
from rl.weight_sync import ParityError

pytestmark = pytest.mark.timeout(900)

DATA = "{train: [{use: long_documents, options: {length: [300, 600]}}, {use: text_sums, weight: 3}]}"
RL = "kind: rl, steps: 2, prompts_per_step: 2, samples_per_prompt: 2, save_every: 1, loss: {algorithm: grpo}"
STAGES = f"""stages=[
    {{kind: pretrain, steps: 2, batch_size: 4, data: {DATA}}},
    {{kind: long_context, name: longer, rope_base: 1e6, context: 2048, max_tokens: 512,
      steps: 3, batch_size: 4, save_every: 1, data: {DATA}}},
    {{{RL}, sampling: {{max_new_tokens: 6}}}},
]"""
SHORT = ("evaluation.tasks=4", "evaluation.validation_tasks=2", "evaluation.max_new_tokens=6")
LENGTHS = (16, 8)  # parts of the context: 128 and 256 tokens


@pytest.fixture
def mini(make_mini, monkeypatch):
    monkeypatch.setattr(needle, "LENGTHS", LENGTHS)
    monkeypatch.setattr(needle, "DEPTHS", (0.0, 1.0))
    monkeypatch.setattr(needle, "REPEATS", 1)
    return make_mini(STAGES, *SHORT)


class Killed(Exception):
    pass


def weights(folder, stage):
    return load_model(folder / stage / "model").state_dict()


@pytest.mark.chaos  # three invocations
def test_later_stages_have_the_new_base_and_a_kill_changes_nothing(mini, monkeypatch):
    printed = mini.here()
    whole = mini.run_folder
    assert "longer: needles found before: text 0." in printed
    assert "longer: needles found after: text 0." in printed
    entering, extended = weights(whole, "pretrain"), load_model(whole / "longer" / "extended").state_dict()
    assert [name for name in entering if not torch.equal(entering[name], extended[name])] == []
    for place in ("longer/extended", "longer/model", "rl/model", "export"):
        config = load_config(whole / place)
        assert (config.rope_base, config.context) == (1e6, 2048), place
        assert load_processor(whole / place).tokenizer.model_max_length == 2048, place
    assert (load_config(whole / "pretrain" / "model").rope_base) == 1000
    gaps = [row["parity_gap"] for row in read_metrics(whole / "metrics.jsonl", stage="rl")]
    assert len(gaps) == 2
    assert max(gaps) < 1e-4, "the engines compute what the learner computes"
    assert (whole / "longer" / "needles.png").stat().st_size > 10_000
    assert {cell["length"] for cell in json.loads((whole / "longer" / "after.json").read_text())["cells"]} == {128, 256}
    figures = json.loads((whole / "longer" / "stage.json").read_text())["figures"]
    names = {f"needles/{kind}{length}" for kind in ("text", "image") for length in ("", "/128", "/256")}
    assert figures.keys() == names | {f"before/{name}" for name in names}
    assert not undeclared(set(figures), EVALUATION)
    assert not undeclared(
        read_metrics(whole / "metrics.jsonl", stage="longer")[0].keys() - {"stage", "step", "time"}, SUPERVISED
    )

    write = Metrics.write
    for stage in ("longer", "rl"):

        def stop(metrics, name, step, values, stage=stage):
            write(metrics, name, step, values)
            if (name, step) == (stage, 2):
                raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Metrics, "write", stop)
            with pytest.raises(Killed):
                mini.here("output_dir=runs/cut")
    printed = mini.here("output_dir=runs/cut")
    assert "resuming" in printed
    for stage in ("longer", "rl"):
        expected, found = weights(whole, stage), weights(mini.folder / "runs" / "cut", stage)
        assert [name for name in expected if not torch.equal(expected[name], found[name])] == [], stage


@pytest.mark.slow  # two invocations
def test_two_ranks_extend_the_model_that_one_process_extends(mini):
    only = "rl=null", "export=false"
    mini.here("output_dir=runs/one", *only)
    mini.here("output_dir=runs/two", "longer.ranks.count=2", *only)
    one, two = mini.folder / "runs" / "one", mini.folder / "runs" / "two"
    assert list((two / "longer" / "checkpoints").glob("step-*.shards")), "the ranks trained it"
    expected = weights(one, "longer")
    for name, tensor in weights(two, "longer").items():
        torch.testing.assert_close(
            tensor, expected[name], rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert load_config(two / "longer" / "model").context == 2048
    after = [json.loads((run / "longer" / "after.json").read_text()) for run in (one, two)]
    assert after[0] == after[1], "the needles are searched with the weights that the ranks trained"


def test_engines_that_keep_the_old_base_fail_the_proof(mini, monkeypatch):
    monkeypatch.setattr(RolloutWorkers, "serve", lambda workers, model_path: None)
    with pytest.raises(ParityError, match="all tensors are equal, so the two compute different things"):
        mini.here()
