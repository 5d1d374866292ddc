"""A source whose engine is a policy that the test knows, and no model."""

import contextlib
import json
from types import SimpleNamespace

import numpy as np

from configs.data import SourceConfig
from configs.rl import RLConfig, SamplingConfig
from configs.task_sampler import TaskSamplerConfig
from rewards.scorer import Scorer
from rl.step import generate_groups
from rl.step_metrics import Stopwatch
from rollouts.patches import Patches
from rollouts.resource_use import PoolUse
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.sources.window import WindowedSource
from rollouts.tasks.mixture import TaskMixture
from rollouts.tasks.task_samplers import build_task_sampler
from rollouts.types import Completion, Prompt, Segment


class Renderer:
    """Prompts without a model; task 13 cannot be rendered."""

    def render_all(self, tasks, rendered=()):
        none = Patches(np.zeros((0, 3, 14, 14), np.float32)), np.zeros((0, 2), np.int64)
        prompts = [
            Prompt(id=t.id, task=t, input_ids=np.arange(2), patches=none[0], image_grid_hws=none[1]) for t in tasks
        ]
        kept = [p for p in prompts if p.task.answer != "13"]
        return kept, {"unlucky": 1} if len(kept) < len(prompts) else {}

    def render(self, task):
        return self.render_all([task])[0][0]


class LocalDispatcher:
    """Stands in for `RequestDispatcher` without workers: what was submitted is one batch of `pool.generate`."""

    def __init__(self, pool, sampling, *, on_completions, on_arrival, room):
        assert room is None
        self.pool, self.sampling, self.on_completions, self.on_arrival = pool, sampling, on_completions, on_arrival
        self.lock, self.waiting = contextlib.nullcontext(), {}

    def submit(self, requests):
        self.waiting.update(requests)

    def wait_until(self, ready):
        requests, self.waiting = self.waiting, {}
        if requests:
            found = self.pool.generate(list(requests.values()), self.sampling)
            for key, completions in list(zip(requests, found, strict=True))[:-1]:
                self.on_arrival(key, completions)
            for key, completions in zip(requests, found, strict=True):
                self.on_completions(key, completions)
        assert ready(), "a synchronous source waits for requests that it did not submit"

    def close(self):
        pass


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


class Run:
    """The part of a run that generates groups: 60 tasks, 6 a step, 2 completions each."""

    def __init__(self, folder, policy, *, steps=9, asynchronous=None, dispatcher=LocalDispatcher, **sampler):
        rows = [{"id": str(i), "question": f"{i}?", "answer": str(i)} for i in range(60)]
        (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
        self.config = RLConfig(
            steps=steps,
            prompts_per_step=6,
            samples_per_prompt=2,
            sampling=SamplingConfig(max_new_tokens=4),
            task_sampler=TaskSamplerConfig(**sampler),
            asynchronous=asynchronous,
        )
        mixture = TaskMixture([SourceConfig(use="rows.jsonl")], seed=3, base=folder)
        self.task_sampler = build_task_sampler(self.config.decided_task_sampler, mixture, seed=1, steps=9)
        self.pool = SimpleNamespace(
            begin_step=lambda: None,
            take_use=lambda: PoolUse(seconds=1.0, workers=1, gpus=0.0),
            version=0,
            policy=policy,
            begun={},
            quarantine={},
            metrics=dict,
            generate=policy.generate,
        )
        pipeline = RolloutPipeline(
            renderer=Renderer(),
            generate=policy.generate,
            decode=lambda ids: str(ids[0]),
            scorer=Scorer(self.config.rewards),
        )
        self.source = WindowedSource(self.config, pipeline, self.pool, seed=7, dispatcher=dispatcher)

    def generate(self, step):
        return generate_groups(self.config, self.task_sampler, self.source, step, Stopwatch())
