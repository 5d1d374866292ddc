"""Accuracy against thinking budget, by hand: who is cut, from where they go on, and what is counted."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from rl_helpers import make_prompt

from configs.errors import UserError
from configs.rl import SamplingConfig
from rewards.types import Score, Verdict, VerdictKind
from rl.run.thinking_budget import evaluate_budgets
from rollouts.sources.rollout_pipeline import RolloutPipeline
from rollouts.types import Completion, Rollout, ScoredRollout, Segment

WORDS = {1: "◁think▷", 2: "hm ", 3: "◁/think▷", 4: "right", 5: "wrong", 6: "cut"}
CLOSE = [3]


def decode(ids):
    return "".join(WORDS[int(i)] for i in ids)


def verdict(text):
    kind = VerdictKind.CORRECT if text.endswith("right") else VerdictKind.WRONG
    return Score(verdict=Verdict(kind=kind, score=0.0), reward=0.0)


def completion(tokens):
    zeros = np.zeros(len(tokens), np.float32)
    return Completion(
        token_ids=np.array(tokens),
        policy_logprobs=zeros,
        sampler_logprobs=zeros,
        finish_reason="stop",
        segments=(Segment(start=0, stop=len(tokens), version=2),),
    )


class Fake:
    """An engine that answers `right` after two thoughts or more, else `wrong`, and notes what it was asked."""

    def __init__(self):
        self.asked = []

    def generate(self, requests, sampling):
        assert sampling.temperature == 0.0
        self.asked.append([[int(t) for t in r.prefixes[0].token_ids] for r in requests])
        groups = []
        for request in requests:
            tokens = [int(t) for t in request.prefixes[0].token_ids]
            groups.append([completion([*tokens, 4 if tokens.count(2) >= 2 else 5])])
        return groups


def pipeline(engine):
    scorer = SimpleNamespace(score=lambda texts, tasks: [verdict(t) for t in texts])
    return RolloutPipeline(renderer=None, generate=engine.generate, decode=decode, scorer=scorer)


@pytest.fixture
def answers(rng, model):
    """Two thoughts then right; four then right; no think block at all but long; four then wrong."""
    prompt = make_prompt(rng, model)
    texts = [[1, 2, 2, 3, 4], [1, 2, 2, 2, 2, 3, 4], [6, 6, 6, 6, 6, 4], [1, 2, 2, 2, 2, 3, 5]]
    return [
        ScoredRollout(
            rollout=Rollout(prompt=prompt, index=i, completion=completion(t), text=decode(t)), score=verdict(decode(t))
        )
        for i, t in enumerate(texts)
    ]


def test_by_hand(answers):
    fake = Fake()
    rows = evaluate_budgets(
        pipeline(fake),
        answers,
        budgets=[9, 2, 4, 2],
        close_ids=CLOSE,
        sampling=SamplingConfig(temperature=0.7),
    )
    assert [r.budget for r in rows] == [2, 4, 9]
    # One thought is too few; three are enough, also for the fourth; nine tokens are more than anyone thinks.
    assert [r.greedy_accuracy for r in rows] == [1 / 4, 4 / 4, 3 / 4]
    assert [r.forced_share for r in rows] == [3 / 4, 2 / 4, 0.0]
    assert [r.mean_tokens for r in rows] == [(4 + 4 + 6 + 4) / 4, (5 + 6 + 6 + 6) / 4, (5 + 7 + 6 + 7) / 4]
    assert fake.asked == [[[1, 2, 3]] * 3, [[1, 2, 2, 2, 3]] * 2]


def test_answers_whose_verifier_failed_are_left_out(answers):
    """As they are in the row without a budget: one of the four is lost, two of the other three are right."""
    broken = replace(answers[0].score, verdict=Verdict(kind=VerdictKind.TIMEOUT, score=0.0), reward=None)
    [row] = evaluate_budgets(
        pipeline(Fake()),
        [replace(answers[0], score=broken), *answers[1:]],
        budgets=[9],
        close_ids=CLOSE,
        sampling=SamplingConfig(temperature=0.7),
    )
    assert row.greedy_accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("text", ["", "16,", "0", "-4", "x", "16 32", "1.5", "²"])
def test_budgets_that_are_no_numbers_are_told(text):
    from rl.cli.evaluate import parse_budgets

    with pytest.raises(UserError, match="must be whole numbers of tokens"):
        parse_budgets(text)


def test_budgets_are_read():
    from rl.cli.evaluate import parse_budgets

    assert parse_budgets(None) == []
    assert parse_budgets("16, 32,8") == [16, 32, 8]
