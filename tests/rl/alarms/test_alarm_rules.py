"""Each alarm is raised by a run that has its fault, names the rollouts that show it, and is quiet in healthy runs."""

import math

import numpy as np
import pytest
from alarm_helpers import GROUPS, SAMPLES, make_groups, make_prompt, make_rollout, run

from rl.alarms.table import ALARMS

BEGINS = 15


def after(step, before, then):
    return then if step > BEGINS else before


def rewarded_but_wrong(step):
    """A share of the wrong rollouts that grows earns as much as correct ones."""
    cheats = min(4, max(0, (step - BEGINS) // 2))
    scored = make_groups(step, right=0.5)
    for place, group in enumerate(scored):
        wrong = [at for at, r in enumerate(group) if not r.score.verdict.score][:cheats]
        for at in wrong:
            group[at] = make_rollout(make_prompt(place), at, right=False, reward=1.0)
    return scored, {}


def format_without_answer(step):
    form = 0.4 if step <= BEGINS else 0.95
    return make_groups(step, right=0.25), {"reward/format": form}


def one_answer(step):
    answer = after(step, None, "7")
    groups = make_groups(step, right=0.25)
    if answer is None:
        return groups, {}
    return [
        [make_rollout(make_prompt(g), s, right=g == 7, answer=answer if s < 5 else None) for s in range(SAMPLES)]
        for g in range(GROUPS)
    ], {}


def source_starves(step):
    """Every second group is of a source that has no correct rollout."""
    groups = make_groups(step, right=0.5)
    for place in range(1, GROUPS, 2):
        groups[place] = [make_rollout(make_prompt(place, source="charts"), s, right=False) for s in range(SAMPLES)]
    return groups, {}


def source_forgotten(step):
    sums, charts = after(step, 0.5, 0.875), after(step, 0.75, 0.375)
    one, other = make_groups(step, right=sums), make_groups(step, right=charts, sources=("charts",))
    return [(one, other)[place % 2][place] for place in range(GROUPS)], {}


def length_explodes(step):
    tokens = 10 if step <= BEGINS else 10 + 2 * (step - BEGINS)
    return make_groups(step, tokens=tokens), {}


def cut_off(step):
    groups = make_groups(step)
    if step > BEGINS:
        for place in range(0, GROUPS, 2):
            groups[place][1] = make_rollout(make_prompt(place), 1, right=False, tokens=99, finish="length")
            groups[place][2] = make_rollout(make_prompt(place), 2, right=False, tokens=98, finish="length")
    return groups, {}


def no_signal(step):
    if step <= BEGINS:
        return make_groups(step, right=0.25), {}
    return [[make_rollout(make_prompt(g), s, right=g % 3 == 0) for s in range(SAMPLES)] for g in range(GROUPS)], {}


def verifiers_fail(step):
    groups = make_groups(step)
    if step > BEGINS:
        groups[3][5] = make_rollout(make_prompt(3), 5, failed=True)
        groups[4][0] = make_rollout(make_prompt(4), 0, failed=True)
    return groups, {}


def stale(step):
    groups = make_groups(step, version=step)
    groups[2][6] = make_rollout(make_prompt(2), 6, version=after(step, step, step - 12))
    return groups, {"discarded/stale": after(step, 0.0, 0.2), "discarded/aborted": after(step, 0.0, 0.1)}


def always_cut_off(step):
    groups = make_groups(step)
    for place in range(GROUPS):
        for sample in (1, 2, 3):
            groups[place][sample] = make_rollout(make_prompt(place), sample, right=False, tokens=99, finish="length")
    return groups, {}


def workers_hang(step):
    """A worker is replaced in step 5, and one in every step from step 16 on."""
    return make_groups(step), {"workers/hangs": float(max(step >= 5, step - BEGINS + 1))}


def with_metrics(**faulty):
    def make(step):
        return make_groups(step), after(step, {}, faulty)

    return make


FAULTS = (
    ("rewarded_but_wrong", rewarded_but_wrong, lambda r: not r.score.verdict.score and r.score.reward == 1.0),
    ("format_without_answer", format_without_answer, lambda r: not r.score.verdict.score),
    ("one_answer", one_answer, lambda r: r.score.verdict.extracted == "7"),
    ("source_starves", source_starves, lambda r: r.rollout.prompt.task.source == "charts"),
    ("source_starves", source_forgotten, lambda r: r.rollout.prompt.task.source == "charts"),
    ("entropy_collapses", with_metrics(entropy=0.02), lambda r: r.score.reward == 0),
    ("length_explodes", length_explodes, lambda r: len(r.rollout.completion.token_ids) > 20),
    ("length_explodes", cut_off, lambda r: r.rollout.completion.finish_reason == "length"),
    ("length_explodes", always_cut_off, lambda r: r.rollout.completion.finish_reason == "length"),
    ("clipped", with_metrics(clip_fraction=0.5), lambda r: True),
    ("workers_fail", workers_hang, lambda r: True),
    ("no_signal", no_signal, lambda r: r.rollout.prompt.task.answer != "0"),
    ("verifiers_fail", verifiers_fail, lambda r: r.score.reward is None),
    ("not_finite", with_metrics(loss=math.nan), lambda r: True),
    ("not_finite", with_metrics(grad_norm=math.inf), lambda r: True),
    ("not_finite", with_metrics(skipped_updates=0.5), lambda r: True),
    ("engine_apart", with_metrics(approx_kl=0.3), lambda r: True),
    ("engine_apart", with_metrics(correction_outside=0.2, approx_kl=0.01), lambda r: True),
    ("stale", stale, lambda r: True),
    ("stale", with_metrics(masked_share=0.7), lambda r: True),
    ("stale", with_metrics(staleness_mean=11.0), lambda r: True),
)


@pytest.mark.parametrize(("name", "make", "shows"), FAULTS, ids=[f"{f[0]}-{at}" for at, f in enumerate(FAULTS)])
def test_an_alarm_is_raised_by_its_fault_and_names_rollouts_that_show_it(name, make, shows):
    raised = [event for event in run(40, make) if event.event == "raised"]
    assert [event.alarm for event in raised][:1] == [name], raised
    event = raised[0]
    begins = 0 if make in (source_starves, always_cut_off) else BEGINS
    assert begins < event.step <= begins + 15
    assert len([e for e in raised if e.alarm == name]) == 1, "said once, not in every step"
    assert event.evidence
    assert not event.evidence.endswith(".")
    scored = make(event.step)[0]
    for place in event.rollouts:
        assert place.step == event.step
        assert shows(scored[place.group][place.sample])
    assert event.rollouts or name == "workers_fail"


def test_the_validation_accuracy_falls_while_the_reward_rises():
    def make(step):
        return make_groups(step, right=min(7, 2 + step // 5) / 8), {}

    events = run(40, make, checks={10: 0.6, 20: 0.62, 30: 0.4, 40: 0.3})
    assert [(event.alarm, event.step, event.event) for event in events] == [("held_out_falls", 30, "raised")]
    assert "0.62 after step 20 and 0.40 after step 30" in events[0].evidence
    assert len({place.group for place in events[0].rollouts}) == len(events[0].rollouts) == 8
    assert run(40, make, checks={10: 0.6, 20: 0.62, 30: 0.6, 40: 0.63}) == []


def test_completions_that_were_always_cut_off_and_a_single_failure_are_no_alarm():
    def make(step):
        groups = make_groups(step)
        for place in range(GROUPS):
            groups[place][1] = make_rollout(make_prompt(place), 1, right=False, tokens=99, finish="length")
        if step == 20:
            groups[3][5] = make_rollout(make_prompt(3), 5, failed=True)
        return groups, {}

    assert run(40, make) == []


def test_a_worker_that_is_replaced_and_a_quarantine_that_a_resume_finds_are_no_alarm():
    def make(step):
        return make_groups(step), {"workers/hangs": float(5 <= step < 20), "workers/quarantined": 7.0}

    assert run(30, make) == []


def test_a_format_that_is_learned_first_is_no_alarm():
    def make(step):
        return make_groups(step, right=min(7, 2 + step // 12) / 8), {"reward/format": min(0.95, 0.4 + step / 20)}

    assert run(60, make) == []


def test_every_alarm_of_the_table_is_tested_here():
    assert {name for name, _, _ in FAULTS} | {"held_out_falls"} == {alarm.name for alarm in ALARMS}


def honest(seed):
    """A run in which accuracy rises, completions get longer, the entropy falls, and rewards have partial credit."""
    rng = np.random.default_rng(seed)
    skill = {"sums": rng.uniform(0.1, 0.4), "charts": rng.uniform(0.1, 0.4)}

    def make(step):
        groups = []
        for place in range(GROUPS):
            source = ("sums", "charts")[place % 2]
            ease = min(0.95, skill[source] + 0.012 * step)
            chances = rng.random(SAMPLES) < np.clip(rng.normal(ease, 0.3), 0, 1)
            near = rng.random(SAMPLES) < 0.1  # wrong by the verifier, and rewarded nearly in full
            groups.append(
                [
                    make_rollout(
                        make_prompt(int(rng.integers(0, 40)), source=source),
                        sample,
                        right=bool(right),
                        reward=1.0 if right else 0.8 if near[sample] else 0.1,
                        tokens=int(rng.integers(5, 15) + step // 2),
                    )
                    for sample, right in enumerate(chances)
                ]
            )
        return groups, {"entropy": 0.5 * 0.97**step, "thinking_share": min(1.0, 0.5 + step / 50)}

    return make


@pytest.mark.parametrize("seed", range(5))
def test_an_honest_run_raises_nothing(seed):
    assert run(60, honest(seed)) == []
