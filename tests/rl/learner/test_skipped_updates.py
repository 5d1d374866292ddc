"""Gradients that are refused: the rule by hand, what is kept, and a replay that finds the sample to blame."""

import copy
import io
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rl_helpers import build_model, make_learner, make_samples

from configs.algorithms import LossConfig
from configs.errors import UserError
from configs.load import dump_recipe, load_recipe
from rl.cli.replay import replay_command
from rl.learner.lora import prepare_training
from rl.learner.skipped_updates import NOT_FINITE, SPIKE, SkippedUpdates, SpikeGuard
from rl.run.console import PlainConsole

RECIPE = """
name: made
output_dir: {folder}
model: {model}
stages: [{{kind: rl, steps: 4}}]
"""
PPO_COLUMNS = ("token_advantages", "old_values", "returns")


def test_the_rule_by_hand():
    guard = SpikeGuard(10)
    assert [guard.refuse(x) for x in (1.0, 900.0)] == [None, None], "too few to know what is usual"
    for norm in (2.0,) * 14:
        assert guard.refuse(norm) is None
    assert guard.limit == 20.0, "ten times the median of 1, 900 and fourteen times 2"
    assert guard.refuse(20.0) is None
    assert guard.refuse(20.1) == SPIKE
    assert guard.limit == 20.0, "what was refused does not count"
    assert guard.refuse(float("nan")) == guard.refuse(float("inf")) == NOT_FINITE
    restored = SpikeGuard(10)
    restored.load_state_dict(json.loads(json.dumps(guard.state_dict())))
    assert restored.limit == guard.limit
    for norm in (7.0,) * 64:
        guard.refuse(norm)
    assert guard.limit == 70.0, "the window moves"


def test_zero_lets_every_finite_gradient_through_and_so_do_gradients_of_zero():
    guard = SpikeGuard(0)
    assert {guard.refuse(10.0**i) for i in range(30)} == {None}
    flat = SpikeGuard(10)
    assert {flat.refuse(0.0) for _ in range(20)} == {None}
    assert flat.limit == math.inf


def test_the_fifth_in_a_row_ends_the_run_and_one_good_step_forgives():
    guard = SpikeGuard(10)
    for norm in (1.0,) * 16 + (99.0,) * 4 + (1.0,) + (99.0,) * 4:
        guard.refuse(norm)
        guard.stop_after_many("rl.optimizer")
    assert guard.refuse(99.0) == SPIKE
    with pytest.raises(UserError, match=r"was a spike in 5 optimizer steps in a row \(the limit of its norm is 10\)"):
        guard.stop_after_many("rl.optimizer")


def made_run(tmp_path, model="{path: somewhere}"):
    folder = tmp_path / "run"
    folder.mkdir()
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(folder=folder, model=model))
    recipe.write_text(dump_recipe(load_recipe(recipe)))
    return folder


def replayed(folder, step):
    printed = io.StringIO()
    results = replay_command(str(folder), step, console=PlainConsole(file=printed, width=200))
    return results, printed.getvalue()


def poison(samples, at, advantage):
    return [replace(s, advantage=advantage) if i == at else s for i, s in enumerate(samples)]


def keeping_learner(model, folder, **options):
    learner = make_learner(model, **options)
    learner._on_skip = SkippedUpdates(folder / "rl" / "skipped", recipe="as the run's").keep
    return learner


def test_a_spike_is_skipped_kept_and_replayed(rng, model, tmp_path):
    folder = made_run(tmp_path)
    options = {"loss": LossConfig(algorithm="kimi_k15"), "minibatches": 2, "micro_batch_tokens": 60}
    learner = keeping_learner(model, folder, spike_threshold=20.0, **options)
    steps = [make_samples(rng, model) for _ in range(10)]
    for samples in steps[:8]:
        assert learner.update(samples)["skipped_updates"] == 0
    before = copy.deepcopy(model.state_dict())
    metrics = learner.update(poison(steps[8], 7, -3000.0))
    assert metrics["skipped_updates"] == 0.5, "one of the two updates of the step"
    moved = [n for n, t in model.state_dict().items() if not torch.equal(t, before[n])]
    assert moved, "the other one was made"
    assert learner.update(steps[9])["skipped_updates"] == 0, "the run goes on"
    (file,) = (folder / "rl" / "skipped" / "step-000009").glob("update-*.pt")
    assert (file.parent / "recipe.yaml").read_text() == "as the run's"
    (why,) = json.loads((file.parent / "why.json").read_text())
    assert why["reason"] == SPIKE
    (result,), text = replayed(folder, 9)
    assert result.same, (result.loss, result.skipped.loss, result.norm, result.skipped.norm)
    assert "reproduced bit for bit" in text
    blamed, runner_up = result.samples[:2]
    assert "advantage -3e+03" in blamed.name
    assert blamed.norm > 50 * runner_up.norm
    assert result.parameters[0].norm <= result.norm
    assert sum(p.norm**2 for p in result.parameters) == pytest.approx(result.norm**2, rel=1e-3)
    assert [*result.first, *result.inputs, *result.weights] == []


@pytest.mark.parametrize("algorithm", ["kimi_k15", "ppo"])
def test_what_is_not_finite_is_named(rng, tmp_path, algorithm):
    model = build_model()
    folder = made_run(tmp_path)
    learner = keeping_learner(model, folder, loss=LossConfig(algorithm=algorithm))
    samples = make_samples(rng, model)
    if algorithm == "ppo":
        samples = [replace(s, columns={n: np.ones(len(s.token_ids), np.float32) for n in PPO_COLUMNS}) for s in samples]
        samples[4].columns["token_advantages"][0] = np.inf
        expected = "sample 4 (task made/7): token_advantages holds inf"
    else:
        samples = poison(samples, 4, float("nan"))
        expected = "sample 4 (task made/7): advantage holds nan (1 of 1)"
    assert learner.update(samples)["skipped_updates"] == 1
    (result,), text = replayed(folder, 1)
    assert result.same
    assert expected in text
    assert result.samples[0].name.startswith("4 ")
    assert not math.isfinite(result.samples[0].norm)
    assert math.isfinite(result.samples[1].norm)
    assert any("backward" in line for line in result.first), text


def test_a_broken_weight_is_named_with_the_module_that_it_breaks(rng, model, tmp_path):
    folder = made_run(tmp_path)
    learner = keeping_learner(model, folder)
    with torch.no_grad():
        model.model.language_model.layers[1].mlp.shared_experts.up_proj.weight[0, 0] = float("inf")
    learner.update(make_samples(rng, model))
    (result,), text = replayed(folder, 1)
    assert result.weights == ["model.language_model.layers.1.mlp.shared_experts.up_proj.weight"]
    assert "forward: the output of model.language_model.layers.1.mlp.shared_experts.up_proj" in text


def test_adapters_and_number_types_come_back(rng, tmp_path):
    folder = made_run(tmp_path, "{path: somewhere, dtype: bfloat16, lora: {rank: 2}, gradient_checkpointing: true}")
    model = build_model(dtype=torch.bfloat16)
    prepare_training(model, load_recipe(folder / "recipe.yaml").model, base="somewhere")
    learner = keeping_learner(model, folder)
    learner.update(make_samples(rng, model))
    learner.update(poison(make_samples(rng, model), 0, float("nan")))
    (result,), _ = replayed(folder, 2)
    assert result.same
    assert all("lora_" in p.name for p in result.parameters)


def test_only_the_newest_steps_are_kept(rng, model, tmp_path):
    folder = made_run(tmp_path)
    learner = keeping_learner(model, folder)
    samples = make_samples(rng, model)
    for bad in (True, True, False, True, True):
        learner.update(poison(samples, 0, float("nan")) if bad else samples)
    kept = SkippedUpdates(folder / "rl" / "skipped")
    assert kept.steps() == [2, 4, 5]
    kept.forget_after(4)
    assert kept.steps() == [2, 4]


@pytest.mark.parametrize(
    ("kept", "step", "expected"),
    [
        (None, 3, "no run is there"),
        ((), 3, "no skipped step is kept"),
        ((2, 4), 3, "step 3 was not skipped, or is no longer kept; there is one of 2, 4"),
    ],
)
def test_a_wrong_run_or_step_is_told(tmp_path, kept, step, expected):
    folder = tmp_path / "run"
    if kept is not None:
        folder = made_run(tmp_path)
        for one in kept:
            (folder / "rl" / "skipped" / f"step-{one:06d}").mkdir(parents=True)
    with pytest.raises(UserError, match=expected):
        replayed(folder, step)
