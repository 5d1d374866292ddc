"""Gathering a step whose answers are known: refilling until there is signal, its bound, tasks without answers."""

import json

import numpy as np
import pytest

from configs.rl import RLConfig, SamplerConfig, SamplingConfig
from configs.schema import SourceConfig
from rewards.scorer import Scorer
from rollouts.sources.group_building import groups_with_signal
from rollouts.sources.sync import SyncSource
from rollouts.tasks.curriculum import build_sampler
from rollouts.tasks.mixture import TaskMixture
from rollouts.types import Completion, Prompt, Segment


class Renderer:
    """Prompts without a model; task 13 cannot be rendered."""

    def render_all(self, tasks):
        none = np.zeros((0, 3, 14, 14), np.float32), np.zeros((0, 2), np.int64)
        prompts = [
            Prompt(id=t.id, task=t, input_ids=np.arange(2), pixel_values=none[0], image_grid_hws=none[1]) for t in tasks
        ]
        kept = [p for p in prompts if p.task.answer != "13"]
        return kept, {"unlucky": 1} if len(kept) < len(prompts) else {}

    def render(self, task):
        return self.render_all([task])[0][0]


class Policy:
    """Answers a task in two ways if its number is a multiple of `every`, always right otherwise; `dead` never."""

    def __init__(self, every, dead=()):
        self.every, self.dead, self.asked = every, dead, []

    def generate(self, requests, sampling):
        self.asked.append(list(requests))
        return [[self.answer(r, i) for i in range(r.n)] if self.alive(r) else [] for r in requests]

    def alive(self, request):
        return request.prompt.task.answer not in self.dead

    def answer(self, request, sample):
        number = int(request.prompt.task.answer)
        wrong = number % self.every == 0 and sample == 0
        values = np.full(1, -1.0, np.float32)
        return Completion(
            token_ids=np.array([number + wrong]),
            policy_logprobs=values,
            sampler_logprobs=values,
            finish_reason="stop",
            segments=(Segment(start=0, stop=1, version=0),),
        )


def made_gatherer(folder, policy, **sampler):
    rows = [{"id": str(i), "question": f"{i}?", "answer": str(i)} for i in range(60)]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = RLConfig(
        steps=9,
        prompts_per_step=6,
        samples_per_prompt=2,
        sampling=SamplingConfig(max_new_tokens=4),
        sampler=SamplerConfig(**sampler),
    )
    mixture = TaskMixture([SourceConfig(use="rows.jsonl")], seed=3, base=folder)
    return SyncSource(
        config=config,
        sampler=build_sampler(config.sampler, mixture, seed=1, steps=9),
        renderer=Renderer(),
        generate=policy.generate,
        scorer=Scorer(config.rewards),
        decode=lambda ids: str(ids[0]),
        seed=7,
    )


@pytest.fixture
def gather(tmp_path):
    return lambda policy, **sampler: made_gatherer(tmp_path, policy, **sampler)


def test_groups_without_signal_are_refilled(gather):
    """Every second task teaches: a step goes on until six do, and never asks for more than are missing."""
    policy = Policy(every=2)
    gatherer = gather(policy, name="dynamic", rounds=20)
    for step in range(3):
        policy.asked.clear()
        gathered = gatherer.gather(step)
        trained_groups = groups_with_signal(gathered.groups, gatherer.config)
        assert len(trained_groups) == 6
        missing = 6
        for requests in policy.asked:
            assert len(requests) <= missing
            missing -= sum(int(r.prompt.task.answer) % 2 == 0 for r in requests)
        seeds = [r.seed for requests in policy.asked for r in requests]
        assert len(set(seeds)) == len(seeds), "no two requests of a step share their random numbers"
        assert [g.prompt for g in gathered.groups] == [r.prompt for requests in policy.asked for r in requests]
        assert gathered.metrics()["rollouts"] == 2.0 * len(gathered.groups)
        assert gatherer.sampler.metrics()["sampler/refill_rounds"] == len(policy.asked) - 1 > 0


def test_refilling_is_bounded(gather):
    policy = Policy(every=1000)
    gathered = gather(policy, name="dynamic", rounds=3).gather(0)
    assert [len(requests) for requests in policy.asked] == [6, 6, 6, 6]
    assert len(gathered.groups) == 24 - gathered.skipped.get("unlucky", 0)


def test_other_samplers_ask_once(gather):
    policy = Policy(every=1000)
    gatherer = gather(policy, name="uniform")
    gatherer.gather(0)
    gatherer.gather(1)
    assert len(policy.asked) == 2
    assert gatherer.sampler.metrics() == {
        "sampler/tasks_seen": 12.0,
        "sampler/success": 1.0,
        "sampler/unsolved_share": 0.0,
        "sampler/solved_share": 1.0,
    }


def test_tasks_without_answers_are_counted_and_teach_nothing(gather):
    policy = Policy(every=1, dead=tuple(map(str, range(0, 60, 3))))
    gatherer = gather(policy, name="uniform")
    steps = [gatherer.gather(step) for step in range(10)]
    assert sum(s.metrics().get("skipped/quarantine", 0) for s in steps) == 20
    assert sum(s.metrics().get("skipped/unlucky", 0) for s in steps) == 1
    assert sum(len(groups_with_signal(s.groups, gatherer.config)) for s in steps) == 39
    assert gatherer.sampler.metrics()["sampler/tasks_seen"] == 39.0
    assert gatherer.sampler.success.rate("0") is None
