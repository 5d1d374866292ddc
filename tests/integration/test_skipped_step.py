"""A run whose reward explodes in one step: the update is skipped and kept, the run goes on, and replay finds it."""

import io
import json
import math

from typer.testing import CliRunner

from rl.alarms.records import read_alarms
from rl.cli.main import app
from rl.cli.replay import replay_command
from rl.run.console import PlainConsole
from rl.run.trackers.jsonl_tracker import read_metrics

# Called for each of the 4 groups of a step; the second step's get rewards whose gradients are beyond float32.
POISON = """
from itertools import count

groups = count()

def poison(responses, reference, *, task):
    number = next(groups) if len(responses) == 4 else 0  # an evaluation asks for one
    return [1e38 * (i % 2) if 4 <= number < 8 else float(i % 2) for i in range(len(responses))]
"""
RL_ALONE = (
    "instruct=null",
    "long_cot=null",
    "export=false",
    "rl.steps=3",
    "rl.workers=1",
    "rl.prompts_per_step=4",
    "evaluation.tasks=4",
    "rl.loss.algorithm=dr_grpo",
    "rl.minibatches=1",
    "rl.length_reward=null",
    "rl.router_replay=true",
    "rl.loss.balance_coef=0.001",
    "model.gradient_checkpointing=true",
    "rl.rewards=[{use: 'poison.py:poison', in_process: true}]",
)


def test_the_run_goes_on_and_the_step_can_be_replayed(make_mini):
    mini = make_mini(*RL_ALONE)
    (mini.folder / "poison.py").write_text(POISON)
    mini.here()
    rows = read_metrics(mini.run_folder / "metrics.jsonl", stage="rl")
    assert [r["skipped_updates"] for r in rows] == [0, 1, 0]
    assert [r["grad_norm"] is None or not math.isfinite(r["grad_norm"]) for r in rows] == [False, True, False]
    assert all(r["experts/flipped"] == 0 for r in rows), "recorded, replayed, and in float32 the same"
    kept = mini.run_folder / "rl" / "skipped"
    assert [p.name for p in kept.iterdir()] == ["step-000002"]
    assert (kept / "step-000002" / "recipe.yaml").read_text() == (mini.run_folder / "recipe.yaml").read_text()
    assert json.loads((kept / "step-000002" / "why.json").read_text())[0]["reason"] == "not finite"
    (alarm,) = [row for row in read_alarms(mini.run_folder) if row["alarm"] == "not_finite"]
    assert (alarm["stage"], alarm["step"], alarm["event"]) == ("rl", 2, "raised")
    assert [place[0] for place in alarm["rollouts"]] == [2] * 8
    assert "an update was skipped, or a number is not finite" in (mini.run_folder / "report.html").read_text()

    printed = io.StringIO()
    (result,) = replay_command(str(mini.run_folder), 2, console=PlainConsole(file=printed, width=200))
    assert result.same, printed.getvalue()
    assert "e+37" in result.samples[0].name, "the advantages of that reward"

    runner = CliRunner()
    assert runner.invoke(app, ["replay", str(mini.run_folder), "2"]).exit_code == 0
