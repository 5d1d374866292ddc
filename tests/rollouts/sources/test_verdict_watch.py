"""A run whose verifiers judge nothing stops, with counts; one verdict is enough to go on."""

from dataclasses import replace

import pytest
from rl_helpers import make_prompt, make_scored

from configs.errors import UserError
from rewards.types import Verdict, VerdictKind
from rollouts.sources.verdict_watch import ENOUGH, VerdictWatch, require_verdicts


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
