"""Groups of a synchronous batch are scored as they arrive, once, and as what the batch gives in the end."""

from dataclasses import replace

import numpy as np
import pytest
from source_helpers import LocalDispatcher, Policy, Run


class Recording:
    """A scorer that remembers which texts were given to it, and when."""

    def __init__(self, scorer):
        self.scorer, self.events = scorer, []

    def submit(self, responses, task):
        self.events.append((task.answer, tuple(responses)))
        return self.scorer.submit(responses, task)


class Batch(LocalDispatcher):
    """All groups arrive, then the batch is passed on as `again` makes it: as it is where no worker failed."""

    again = staticmethod(lambda completions: completions)
    arrivals = None  # how many groups had been given to the scorer before the batch was passed on
    scorer = None

    def wait_until(self, ready):
        requests, self.waiting = self.waiting, {}
        found = self.pool.generate(list(requests.values()), self.sampling)
        for key, completions in zip(requests, found, strict=True):
            self.on_arrival(key, completions)
        Batch.arrivals = list(Batch.scorer.events)
        for key, completions in zip(requests, found, strict=True):
            self.on_completions(key, self.again(completions))
        assert ready()


@pytest.fixture
def run(tmp_path, monkeypatch):
    made = Run(tmp_path, Policy(every=2), dispatcher=Batch)
    recording = Recording(made.source.pipeline.scorer)
    made.source.pipeline = replace(made.source.pipeline, scorer=recording)
    monkeypatch.setattr(Batch, "scorer", recording)
    return made


def other_bits(completions):
    """The same tokens, as another batch computes them."""
    return [replace(c, policy_logprobs=c.policy_logprobs + np.float32(1e-3)) for c in completions]


@pytest.mark.parametrize("again", [lambda completions: completions, other_bits])
def test_scoring_begins_with_the_first_group_and_happens_once(run, monkeypatch, again):
    monkeypatch.setattr(Batch, "again", staticmethod(again))
    gathered = run.generate(0)
    assert len(Batch.arrivals) == len(gathered.groups) == 6
    assert Batch.scorer.events == Batch.arrivals, "no text is scored twice"
    for group in gathered.groups:
        answers = [int(r.rollout.text) for r in group.rollouts]
        assert group.rewards == [float(a == int(group.prompt.task.answer)) for a in answers]
        bits = {r.rollout.completion.policy_logprobs[0] for r in group.rollouts}
        assert bits == {np.float32(-1.0) + np.float32(1e-3 if again is other_bits else 0.0)}, "of the batch that counts"


def test_other_tokens_are_scored_anew(run, monkeypatch):
    """Where a batch is generated without the task that killed its worker, its last bits may differ, and so its text."""
    wrong = lambda completions: [replace(c, token_ids=c.token_ids + 1000) for c in completions]  # noqa: E731
    monkeypatch.setattr(Batch, "again", staticmethod(wrong))
    gathered = run.generate(0)
    assert {r for g in gathered.groups for r in g.rewards} == {0.0}
    assert all(int(r.rollout.text) >= 1000 for g in gathered.groups for r in g.rollouts)
    assert len(Batch.scorer.events) == 2 * len(Batch.arrivals)


def test_a_task_that_went_to_quarantine_has_no_rollouts(run, monkeypatch):
    monkeypatch.setattr(Batch, "again", staticmethod(lambda completions: []))
    assert run.generate(0).skipped["quarantine"] == 6
