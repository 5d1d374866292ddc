"""A run whose verifiers judge nothing stops, with counts; one verdict is enough to go on."""

from dataclasses import replace

import pytest
from rl_helpers import make_prompt, make_scored

from configs.errors import UserError
from rewards.scorer import Scorer
from rewards.types import Task, Verdict, VerdictKind
from rollouts.sources.verdict_watch import ENOUGH, VerdictWatch, require_verdicts, try_rewards


@pytest.fixture
def prompt(rng, model):
    return make_prompt(rng, model)


def failed(prompt, kind=VerdictKind.BAD_REFERENCE):
    return make_scored(prompt, None, kind=kind)


def test_failures_alone_stop_the_run_with_their_counts(prompt):
    watch = VerdictWatch()
    watch.observe([failed(prompt)] * (ENOUGH - 1), where="rl, step 1")
    with pytest.raises(UserError) as error:
        watch.observe([failed(prompt, VerdictKind.TIMEOUT)], where="rl, step 2")
    text = str(error.value)
    assert text.startswith(f"rl, step 2: not one of {ENOUGH} completions could be judged:\n")
    assert f"{ENOUGH - 1} x verifier: bad_reference" in text
    assert "1 x verifier: timeout" in text


def test_a_reward_that_is_not_a_number_is_named_with_its_detail(prompt):
    scored = make_scored(prompt, None)
    crash = Verdict(kind=VerdictKind.CRASH, score=0.0, detail="returned nan")
    scored = replace(scored, score=replace(scored.score, failures={"r.py:f": crash}))
    with pytest.raises(UserError, match=r"2 x r\.py:f: crash \(returned nan\)"):
        require_verdicts([scored, scored], where="rl")


def test_one_verdict_is_enough(prompt):
    watch = VerdictWatch()
    watch.observe([failed(prompt)] * 5 + [make_scored(prompt, 0.0)], where="rl")
    watch.observe([failed(prompt)] * 100, where="rl", last=True)
    require_verdicts([], where="held-out tasks")


def test_a_short_run_stops_at_its_last_step(prompt):
    watch = VerdictWatch()
    watch.observe([failed(prompt)], where="rl, step 1")
    with pytest.raises(UserError, match="not one of 2 completions"):
        watch.observe([failed(prompt)], where="rl, step 2", last=True)


def task(i, answer="3", verifier="math"):
    return Task(id=str(i), source="s", question="How many?", answer=answer, verifier=verifier)


def test_references_are_tried_before_any_time_is_spent():
    good = [task(i) for i in range(20)]
    bad = [task(i, answer="a few", verifier="numeric") for i in range(20)]
    with Scorer(()) as scorer:
        assert try_rewards(scorer, good, where="data.train") == []
        assert try_rewards(scorer, [], where="data.train") == []
        [line] = try_rewards(scorer, [*bad[:3], *good], where="data.train")
        assert line.startswith("data.train: 3 of 16 reference answers cannot be judged: 3 x verifier: bad_reference")
        with pytest.raises(UserError, match=f"data.train: not one of {ENOUGH} reference answers could be judged"):
            try_rewards(scorer, bad, where="data.train")
