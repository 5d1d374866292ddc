"""Where tokens went, by hand: filtered, truncated, aborted and stale; and the ages of those that were trained on."""

from dataclasses import replace

import numpy as np
import pytest
from rl_helpers import build_model, make_prompt, make_scored

from rl.token_accounting import discarded_metrics
from rl.types import Sample
from rollouts.sources.staleness import staleness_metrics
from rollouts.types import Segment


def learn(*members):
    return [
        Sample(
            id=m.rollout.id,
            prompt=m.rollout.prompt,
            token_ids=m.rollout.completion.token_ids,
            old_logprobs=m.rollout.completion.policy_logprobs,
            advantage=1.0,
        )
        for m in members
    ]


@pytest.fixture
def prompts(rng):
    model = build_model()
    return [make_prompt(rng, model, text=text) for text in (4, 5, 6)]


def test_every_token_has_one_cause(prompts):
    """Of 40 tokens 10 are trained on: 8 belong to a group without signal, 6 were cut off and masked, and so on."""
    teaches = [
        make_scored(prompts[0], 1.0, length=7),
        make_scored(prompts[0], 0.0, length=3),
        make_scored(prompts[0], 0.0, length=6, finish="length"),
    ]
    equal = [make_scored(prompts[1], 1.0, length=5), make_scored(prompts[1], 1.0, length=3, finish="length")]
    unfinished = [make_scored(prompts[2], 0.0, length=4, finish="abort")]
    found = discarded_metrics([teaches, equal, unfinished], learn(*teaches[:2]), {"stale": 10, "aborted": 2})
    assert found == {
        "discarded/filtered": 8 / 40,
        "discarded/truncated": 6 / 40,
        "discarded/aborted": 6 / 40,
        "discarded/stale": 10 / 40,
    }
    assert discarded_metrics([], [], {}) == {}


def test_age_is_that_of_the_first_token(prompts):
    def written_by(*versions):
        member = make_scored(prompts[0], 1.0, length=len(versions))
        segments = tuple(Segment(start=i, stop=i + 1, version=v) for i, v in enumerate(versions))
        completion = replace(member.rollout.completion, segments=segments)
        return replace(member, rollout=replace(member.rollout, completion=completion))

    group = [written_by(7), written_by(5, 7), written_by(6, 6), written_by(7, 7)]
    assert staleness_metrics([m.rollout.completion for m in group], version=7) == {
        "staleness_mean": pytest.approx(np.mean([0, 2, 1, 0])),
        "staleness_max": 2.0,
        "staleness_mixed": 0.25,
        "staleness/0": 0.5,
        "staleness/1": 0.25,
        "staleness/2": 0.25,
    }
    assert staleness_metrics([], version=7) == {}
