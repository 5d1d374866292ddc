"""A run stopped in the middle of RL, by Ctrl-C and then by SIGKILL, resumes and ends as an undisturbed run does."""

import json
import re
import signal

import pytest
import torch

from kimi_vl import load_model
from rl.run.trackers.jsonl_tracker import read_metrics

STEPS = 6
SAME = ("reward", "accuracy", "tokens_mean", "loss", "grad_norm", "entropy", "learning_rate", "version")


@pytest.mark.chaos
@pytest.mark.timeout(900)  # five runs, each with a Ray of its own
def test_a_killed_run_ends_in_the_same_weights(whole_run, make_mini):
    undisturbed, _ = whole_run
    mini = make_mini()
    mini.begin_before_rl(undisturbed)

    code, output, seen = mini.stop_at("rl", 3, signal.SIGINT)
    assert code == 130, output
    assert "stopped; the same command continues the run" in output
    assert "Traceback" not in output
    assert 3 <= seen < STEPS, "the signal came too late"

    code, output, seen = mini.stop_at("rl", 5, signal.SIGKILL)
    assert code == -signal.SIGKILL, output
    assert "resuming rl after step" in output
    assert 5 <= seen < STEPS, "the signal came too late"
    assert not (mini.run_folder / "rl" / "stage.json").exists()

    printed = mini.here()
    assert re.search("resuming rl after step [24]", printed), "that of step 4 is written in the background"
    assert "instruct: already done" in printed
    stages = json.loads((mini.run_folder / "summary.json").read_text())["stages"]
    assert stages[-1]["resumed"] is True

    expected, state = undisturbed.learner(), mini.learner()
    assert different(state["model"], expected["model"]) == []
    assert state["version"] == expected["version"] == STEPS
    assert state["schedule"] == expected["schedule"]
    assert flat(state["optimizer"]) == flat(expected["optimizer"])
    final, of_whole = (load_model(m.run_folder / "rl" / "model").state_dict() for m in (mini, undisturbed))
    assert different(final, of_whole) == []
    rows, wanted = (read_metrics(m.run_folder / "metrics.jsonl", stage="rl") for m in (mini, undisturbed))
    assert [[r[name] for name in SAME] for r in rows] == [[r[name] for name in SAME] for r in wanted]
    assert mini.rollouts() == undisturbed.rollouts()
    begun = load_model(mini.run_folder / "long_cot" / "model").state_dict()
    assert different(state["model"], begun), "RL changed nothing, so the test shows nothing"


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_run_that_was_stopped_between_stages_draws_the_same_adapters(make_mini, tmp_path):
    """New adapters are random. They must not depend on whether the stage before ran in this process."""
    small = ("model.lora={rank: 2}", "instruct.steps=2", "long_cot=null", "rl.steps=2", "evaluation.tasks=2")
    whole = make_mini(*small)
    whole.here()
    again = type(whole)(tmp_path / "again", small)
    again.begin_before_rl(whole)
    assert "instruct: already done" in again.here()
    expected, state = whole.learner()["model"], again.learner()["model"]
    assert any("lora_A" in name for name in state)
    assert different(state, expected) == []


def different(a, b):
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def flat(state):
    """Tensors as lists, so that nested states can be compared."""
    if isinstance(state, torch.Tensor):
        return state.tolist()
    if isinstance(state, dict):
        return {key: flat(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [flat(value) for value in state]
    return state
