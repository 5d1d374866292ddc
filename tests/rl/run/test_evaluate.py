"""Evaluation: figures by hand, and requests that depend on the seed and the prompt's place alone."""

import math
from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
from rl_helpers import make_prompt

from configs.rl import SamplingConfig
from configs.schema import EvaluationConfig
from rewards.types import Score, Verdict, VerdictKind
from rl.run.evaluate import evaluate, evaluation_sampling
from rollouts.sources.rollout_pipeline import RolloutPipeline, request_seed
from rollouts.sources.scoring import thinks
from rollouts.types import Completion, Segment

SAMPLING = SamplingConfig(max_new_tokens=8, temperature=0.7, top_p=0.9)
TEXTS = {0: "◁think▷hm◁/think▷right", 1: "right", 2: "wrong", 3: "◁think▷hm", 4: "crash"}


class Fake:
    """An engine that answers with text number `prompt's last id`, and a scorer that reads the text."""

    def __init__(self):
        self.calls = []

    def pipeline(self):
        scorer = SimpleNamespace(score=self.score)
        return RolloutPipeline(renderer=None, generate=self.generate, decode=self.decode, scorer=scorer)

    def generate(self, requests, sampling):
        self.calls.append((list(requests), sampling))
        return [[self.completion(int(r.prompt.input_ids[-1]), sampling) for _ in range(r.n)] for r in requests]

    def completion(self, text, sampling):
        if sampling.temperature > 0 and text != 4:
            text = 2  # sampled answers are all wrong, or crash the verifier
        tokens = np.full(text + 1, text)
        zeros = np.zeros(len(tokens), np.float32)
        return Completion(
            token_ids=tokens,
            policy_logprobs=zeros,
            sampler_logprobs=zeros,
            finish_reason="length" if text == 3 else "stop",
            segments=(Segment(start=0, stop=len(tokens), version=0),),
        )

    def decode(self, token_ids):
        return TEXTS[int(token_ids[0])]

    def score(self, responses, tasks):
        kinds = {"right": VerdictKind.CORRECT, "crash": VerdictKind.CRASH}
        found = [kinds.get(text.rpartition("▷")[2], VerdictKind.WRONG) for text in responses]
        return [
            Score(verdict=Verdict(kind=k, score=0.0), reward=None if k is VerdictKind.CRASH else 0.0) for k in found
        ]


@pytest.fixture
def prompts(rng, model):
    made = []
    for i in range(5):
        prompt = make_prompt(rng, model, text=3, source="a" if i < 2 else "b")
        prompt.input_ids[-1] = i
        made.append(prompt)
    return made


def run(fake, prompts, **options):
    return evaluate(fake.pipeline(), prompts, sampling=SAMPLING, **options)


def test_figures_by_hand(prompts):
    fake = Fake()
    result, answers = run(fake, prompts, samples=2, seed=1)
    assert [a.rollout.text for a in answers] == [TEXTS[i] for i in range(5)]
    assert result.metrics() == pytest.approx(
        {
            "tasks": 5,
            "greedy_accuracy": 2 / 4,  # one of the five has no verdict
            "greedy_accuracy/a": 1.0,
            "greedy_accuracy/b": 0.0,
            "sampled_accuracy": 0.0,
            "thinking_share": 1 / 5,  # an open block is no thinking
            "mean_tokens": 3.0,
            "truncated_share": 1 / 5,
            "verifier_failures": 1 + 2,  # greedy and sampled
        }
    )
    assert {name: estimate.value for name, estimate in result.intervals.items()} == {
        "greedy": 2 / 4,
        "pass@1": 0.0,
        "pass@2": 0.0,
        "maj@2": 0.0,
    }
    assert 0.0 <= result.intervals["greedy"].low < 0.5 < result.intervals["greedy"].high <= 1.0
    assert result.failure_reasons == {"crash": 3}
    assert result.gaps() == [
        "3 answers without a verdict: crash",
        *(f"{name} is over 4 of 5 tasks: the others have too few verdicts" for name in result.intervals),
    ]
    (greedy, greedy_sampling), (drawn, drawn_sampling) = fake.calls
    assert greedy_sampling.temperature == 0
    assert drawn_sampling == SAMPLING
    assert {r.n for r in greedy} == {1}
    assert {r.n for r in drawn} == {2}


def test_without_samples_there_is_no_sampled_accuracy(prompts):
    fake = Fake()
    result, _ = run(fake, prompts, samples=0, seed=1)
    assert math.isnan(result.sampled_accuracy)
    assert len(fake.calls) == 1


def test_where_no_verifier_gave_a_verdict_there_is_no_accuracy(prompts):
    result, _ = run(Fake(), prompts[4:], samples=1, seed=1)
    assert math.isnan(result.greedy_accuracy)
    assert math.isnan(result.sampled_accuracy)
    assert math.isnan(result.by_source["b"])
    assert result.verifier_failures == 2


def test_rollouts_stay_with_their_prompts(prompts):
    fake = Fake()
    scored = fake.pipeline().generate_and_score(prompts, SamplingConfig(temperature=0.0), n=3, seed=4)
    assert [len(group) for group in scored] == [3] * 5
    for prompt, group in zip(prompts, scored, strict=True):
        assert all(s.rollout.prompt is prompt for s in group)
        assert {s.rollout.text for s in group} == {TEXTS[int(prompt.input_ids[-1])]}


def test_seeds_of_requests():
    seeds = {request_seed(s, i) for s in (0, 1, 2**63, 2**64 - 1) for i in range(100)}
    assert len(seeds) == 400
    assert all(0 <= s < 2**64 for s in seeds)
    assert request_seed(5, 3) == request_seed(5, 3)
    assert request_seed(-1, 0) == request_seed(2**64 - 1, 0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("◁think▷2+2◁/think▷4", True),
        ("4", False),
        ("◁think▷2+2", False),
        ("◁think▷ \n◁/think▷4", False),
        ("", False),
    ],
)
def test_thinking_is_a_closed_block_with_something_in_it(text, expected):
    assert thinks(text) is expected


@pytest.mark.parametrize("name", [field.name for field in fields(SamplingConfig)])
def test_evaluation_drops_no_option_of_sampling_but_has_a_token_limit_of_its_own(name):
    unusual = {
        "max_new_tokens": 7,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 11,
        "min_p": 0.05,
        "repeat_window": 90,
    }
    training = replace(SamplingConfig(repeat_window=80), **{name: unusual[name]})
    assert evaluation_sampling(training, EvaluationConfig(max_new_tokens=33)) == replace(training, max_new_tokens=33)


def test_without_rl_evaluation_samples_with_the_defaults():
    assert evaluation_sampling(None, EvaluationConfig(max_new_tokens=33)) == SamplingConfig(max_new_tokens=33)
