"""One step with fakes around it: how many tasks a refill asks for, and what the control shuffles."""

from types import SimpleNamespace

import pytest
from rl_helpers import make_prompt, make_scored

from configs.rl import RLConfig
from rl import step as step_module
from rl.step import Loop, generate_groups
from rl.step_metrics import Stopwatch
from rl.types import ModelOutputs
from rollouts.resource_use import PoolUse


class Source:
    """Groups that are finished, and a number of groups that continue in the next step."""

    def __init__(self, groups, *, unfinished=0):
        self.groups, self.unfinished, self.submitted = groups, unfinished, []

    def begin_step(self, step):
        return []

    def next_groups(self, step):
        return self.groups

    def submit(self, tasks, *, step):
        self.submitted.append(tasks)
        return []

    def wait_for(self, keys):
        return []

    def report(self, step):
        return SimpleNamespace(skipped={}, stale=(), metrics={}, dropped_tokens={})


class Refills:
    """A task sampler that notes how many tasks a refill asks for, and grants one refill."""

    def __init__(self):
        self.asked, self.observed = [], []

    def begin_step(self, step):
        pass

    def refill(self, n):
        self.asked.append(n)
        return ["task"] * n if len(self.asked) == 1 else []

    def observe(self, results):
        self.observed += [flags for _, flags in results]

    def metrics(self):
        return {}


def finished(rng, model, *rewards):
    prompt = make_prompt(rng, model)
    return SimpleNamespace(prompt=prompt, scored=lambda: tuple(make_scored(prompt, r) for r in rewards))


@pytest.mark.parametrize(("unfinished", "asked"), [(0, [4, 4]), (3, [1, 1]), (4, []), (9, [])])
def test_a_refill_leaves_out_the_groups_that_continue(rng, model, unfinished, asked):
    """Six are wanted, two have signal, one has none; pending groups count as groups with signal."""
    groups = [finished(rng, model, 1.0, 0.0), finished(rng, model, 0.0, 1.0), finished(rng, model, 1.0, 1.0)]
    source, task_sampler = Source(groups, unfinished=unfinished), Refills()
    rollouts = generate_groups(RLConfig(steps=1, prompts_per_step=6), task_sampler, source, 0, Stopwatch())
    assert task_sampler.asked == asked
    assert [len(tasks) for tasks in source.submitted] == asked[:1]
    assert len(rollouts.groups) == 3
    assert len(task_sampler.observed) == 3


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_control_trains_on_shuffled_rewards(rng, model, monkeypatch, shuffled):
    seen, given = [], []
    monkeypatch.setattr(step_module, "step_metrics", lambda rollouts, samples, config: {})
    learner = SimpleNamespace(
        version=0,
        model_outputs=lambda groups, version: [[ModelOutputs()] * len(g.rollouts) for g in groups],
        update=lambda samples: {},
        resource_use=list,
    )
    loop = Loop(
        config=RLConfig(steps=1, prompts_per_step=8, shuffle_rewards=shuffled),
        task_sampler=Refills(),
        source=Source([finished(rng, model, 1.0, 0.0, 0.0, 0.0) for _ in range(8)]),
        pool=SimpleNamespace(metrics=dict, begin_step=list, take_use=lambda: PoolUse(seconds=1, workers=1, gpus=0)),
        learner=learner,
        log=SimpleNamespace(begin=lambda step, scored, groups, samples: seen.extend(groups) or given.extend(scored)),
        sync=SimpleNamespace(publish=dict),
        seed=0,
    )
    loop.step(0)
    rewards = [g.rewards for g in seen]
    assert (rewards != [[1.0, 0.0, 0.0, 0.0]] * 8) == shuffled
    assert sum(map(sum, rewards)) == 8


@pytest.mark.parametrize("colocate", [False, True])
def test_the_engine_sleeps_while_the_learner_works(rng, model, monkeypatch, colocate):
    """After the rollouts, before the learner's first pass; the weight sync, which wakes it, comes last.

    Before it wakes, the GPU memory that PyTorch's allocator keeps is given back.
    """
    calls = []
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: calls.append("free"))
    monkeypatch.setattr(step_module, "step_metrics", lambda rollouts, samples, config: {})
    learner = SimpleNamespace(
        version=0,
        model_outputs=lambda groups, version: (
            calls.append("log-probs") or [[ModelOutputs()] * len(g.rollouts) for g in groups]
        ),
        update=lambda samples: calls.append("update") or {},
        resource_use=list,
    )
    source = Source([finished(rng, model, 1.0, 0.0)])
    monkeypatch.setattr(source, "next_groups", lambda step: calls.append("rollouts") or source.groups)
    loop = Loop(
        config=RLConfig(steps=1, prompts_per_step=1, workers=1, colocate=colocate),
        task_sampler=Refills(),
        source=source,
        pool=SimpleNamespace(
            metrics=dict,
            begin_step=list,
            take_use=lambda: PoolUse(seconds=1, workers=1, gpus=0),
            sleep=lambda: calls.append("sleep"),
        ),
        learner=learner,
        log=SimpleNamespace(begin=lambda *_: None),
        sync=SimpleNamespace(publish=lambda: calls.append("publish") or {}),
        seed=0,
    )
    loop.step(0)
    expected = ["rollouts", "sleep", "log-probs", "update", "free", "publish"]
    assert calls == [call for call in expected if colocate or call not in ("sleep", "free")]
