"""The RL stage's state through its checkpoints: what goes on exactly, and a damaged newest one."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rl_helpers import make_learner, make_prompt, make_scored

from configs.algorithms import LossConfig
from configs.errors import UserError
from configs.rewards import LengthRewardConfig
from configs.rl import RLConfig
from configs.schema import EvaluationConfig
from rewards.types import Task, VerdictKind
from rl.alarms.records import read_alarms
from rl.alarms.watch import AlarmWatch
from rl.checkpoint import list_checkpoints
from rl.rollout_log import RolloutLog
from rl.stages.rl_schedule import RLSchedule
from rollouts.sources.group_building import make_groups
from rollouts.tasks.task_samplers import DynamicSampler


class Walk:
    """A mixture of numbered tasks."""

    def draw(self, step, n):
        return [Task(id=f"{step}/{i}", source="walk", question="?", answer="1") for i in range(n)]


@pytest.fixture
def make_stage(tmp_path, model):
    def made(**options):
        learner = make_learner(model)
        sampler = DynamicSampler(SimpleNamespace(rounds=3), Walk(), seed=1, steps=9)
        published = []
        loop = SimpleNamespace(
            config=RLConfig(steps=9, **options),
            alarms=AlarmWatch(),
            learner=learner,
            task_sampler=sampler,
            source=SimpleNamespace(state_dict=dict, load_state_dict=lambda state: None),
            log=RolloutLog(tmp_path / "rollouts"),
            sync=SimpleNamespace(publish=lambda: published.append(learner.version)),
        )
        said = []
        (tmp_path / "run" / "rl").mkdir(parents=True, exist_ok=True)
        stage = RLSchedule(
            loop,
            folder=tmp_path / "run" / "rl",
            base=str(tmp_path),
            on_written=lambda: None,
            pipeline=None,
            validation=[],
            evaluation=EvaluationConfig(),
            metrics=SimpleNamespace(write=lambda *_: None),
            say=said.append,
        )
        return stage, loop, said, published

    return made


def after(stage, loop, step):
    """As if steps up to `step` had been taken: drawn, trained, logged, saved."""
    for task in loop.task_sampler.draw(step, 3):
        loop.task_sampler.observe([(task, [True, step > 2])])
    loop.learner.version = step
    loop.log.write(step, [], [], [])
    stage._best = step / 10
    stage._save(step)
    stage._checkpoints.wait()
    return loop.task_sampler.state_dict(), torch.rand(2).tolist()


def test_a_damaged_newest_checkpoint_gives_the_state_of_the_one_before(make_stage, tmp_path):
    stage, loop, _, _ = make_stage()
    sampler, drawn = after(stage, loop, 2)
    after(stage, loop, 4)
    newest = list_checkpoints(tmp_path / "run" / "rl" / "checkpoints")[-1]
    newest.write_bytes(newest.read_bytes()[:-100])

    stage, loop, said, published = make_stage()
    assert stage.restore() == 2
    assert "step-000004.pt cannot be read" in said[0]
    assert "trying the one before" in said[0]
    assert said[1] == "resuming rl after step 2"
    assert loop.task_sampler.state_dict() == sampler
    assert stage._best == 0.2
    assert torch.rand(2).tolist() == drawn, "random numbers go on where they were"
    assert published == [2]
    assert [p.name for p in sorted(loop.log.folder.glob("*.parquet"))] == ["step-000002.parquet"]
    again, _ = after(stage, loop, 4)
    assert again["drawn"] == 6
    assert set(again["success"]["rates"]) == {f"{i}/0" for i in range(6)}


def test_without_a_checkpoint_the_stage_begins(make_stage):
    stage, loop, said, published = make_stage()
    loop.log.write(1, [], [], [])
    assert stage.restore() == 0
    assert (said, published) == ([], [0])
    assert list(loop.log.folder.glob("*.parquet")) == [], "left by a run that was killed before its first checkpoint"


def make_steps(loop, monkeypatch, *, faulty):
    """A loop whose steps have a loss that is not a number in `faulty`, and nothing else."""

    def take(index):
        loop.log.write(index + 1, [], [], [])
        loop.alarms.observe(index + 1, [], {"loss": float("nan") if index + 1 in faulty else 0.1})
        return {"loss": 0.1}

    loop.step = take
    monkeypatch.setattr(RLSchedule, "_validate", lambda self, step: {})


def test_an_alarm_is_said_once_and_kept_and_the_run_goes_on(make_stage, tmp_path, monkeypatch):
    stage, loop, said, _ = make_stage()
    make_steps(loop, monkeypatch, faulty={2, 3})
    stage.run(0, lambda step, values: None)
    assert [line.partition(": ")[0] for line in said] == ["ALARM (rl, step 2)", "alarm over (rl, step 8)"]
    rows = read_alarms(tmp_path / "run")
    assert [(row["stage"], row["step"], row["alarm"], row["event"]) for row in rows] == [
        ("rl", 2, "not_finite", "raised"),
        ("rl", 8, "not_finite", "over"),
    ]


def test_with_stop_an_alarm_ends_the_run_after_a_checkpoint_and_the_next_command_goes_on(
    make_stage, tmp_path, monkeypatch
):
    stage, loop, _, _ = make_stage(alarms="stop")
    make_steps(loop, monkeypatch, faulty={2, 3})
    with pytest.raises(UserError, match=r"rl stops after step 2, as rl.alarms = 'stop' says: an update was skipped"):
        stage.run(0, lambda step, values: None)
    before = (tmp_path / "run" / "alarms.jsonl").read_bytes()

    stage, loop, said, _ = make_stage(alarms="stop")
    make_steps(loop, monkeypatch, faulty={2, 3})
    assert stage.restore() == 2
    stage.run(2, lambda step, values: None)
    assert [line.partition(": ")[0] for line in said] == ["resuming rl after step 2", "alarm over (rl, step 8)"]
    assert (tmp_path / "run" / "alarms.jsonl").read_bytes().startswith(before)


def test_after_a_kill_alarms_of_repeated_steps_stand_in_the_file_once(make_stage, tmp_path, monkeypatch):
    stage, loop, _, _ = make_stage(save_every=3)
    make_steps(loop, monkeypatch, faulty={4})

    def kill(step, values):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage.run(0, kill)
    stage, loop, _, _ = make_stage(save_every=3)
    make_steps(loop, monkeypatch, faulty={4})
    assert stage.restore() == 3
    assert read_alarms(tmp_path / "run") == []
    stage.run(3, lambda step, values: None)
    assert [(row["step"], row["event"]) for row in read_alarms(tmp_path / "run")] == [(4, "raised"), (9, "over")]


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_what_the_critic_knows_of_validation_answers(rng, model, tmp_path, algorithm):
    """Explained variance over all tokens of the answers that there are; without a critic nothing is said."""
    loss = LossConfig(algorithm=algorithm)
    learner = make_learner(model, loss=loss)
    prompts = [make_prompt(rng, model) for _ in range(3)]
    drawn = [[make_scored(prompts[0], 1.0, length=2), make_scored(prompts[0], 1.0, length=4)]]
    drawn += [[make_scored(prompts[1], 0.0, kind=VerdictKind.WRONG, length=3)], []]  # in quarantine
    config = RLConfig(steps=1, loss=loss, length_reward=LengthRewardConfig(weight=0.5))
    stage = RLSchedule(
        SimpleNamespace(config=config, learner=learner),
        folder=tmp_path,
        base=str(tmp_path),
        on_written=lambda: None,
        pipeline=None,
        validation=prompts,
        evaluation=EvaluationConfig(),
        metrics=None,
        say=print,
    )
    if algorithm == "grpo":
        assert stage._critics_knowledge(drawn, 1) == {}
        return
    torch.nn.init.normal_(learner.critic.head.outer.weight)
    groups = make_groups(prompts, drawn)[:2]
    outputs = [own for notes in learner.model_outputs(groups) for own in notes]
    values = np.concatenate([own.values for own in outputs]).astype(np.float64)
    returns = np.array([1.25] * 2 + [0.75] * 4 + [0.0] * 3)  # the length reward of +-0.5 counts, as in training
    expected = 1 - np.var(returns - values) / np.var(returns)
    assert stage._critics_knowledge(drawn, 1) == {"explained_variance": pytest.approx(expected, rel=1e-4)}
    assert abs(expected) > 1e-3
