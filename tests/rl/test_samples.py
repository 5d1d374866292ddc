"""Scored rollouts to groups and samples: failed verdicts leave, shaping comes after its warm-up, nothing is lost."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from rl_helpers import make_prompt, make_scored

from configs.algorithms import KLConfig, LossConfig
from configs.correction import CorrectionConfig
from configs.rewards import LengthRewardConfig, RewardConfig
from configs.rl import RLConfig, SamplingConfig
from configs.task_sampler import TaskSamplerConfig
from rewards.types import VerdictKind
from rl.samples import make_samples as make_samples_from
from rl.samples import sample_metrics
from rl.types import ModelOutputs
from rollouts.sources.group_building import group_metrics, groups_with_signal, has_signal, make_groups, permute_rewards
from rollouts.sources.reward_shaping import (
    length_weight_note,
    penalize_repeats,
    shape_by_length,
    shape_by_limit,
    shape_rewards,
)

GRPO = RLConfig(steps=1, loss=LossConfig(algorithm="grpo"))
PLAIN = RLConfig(steps=1, loss=LossConfig(algorithm="dr_grpo"))
K15 = RLConfig(steps=1, loss=LossConfig(algorithm="kimi_k15"))
WRONG, FAILED = VerdictKind.WRONG, VerdictKind.TIMEOUT


@pytest.fixture
def prompt(rng, model):
    return make_prompt(rng, model)


def make_samples(groups, config, note=None):
    """Of the groups that teach, with nothing to say of them, or the same of each."""
    kept = groups_with_signal(groups, config)
    return make_samples_from(kept, config, [[note or ModelOutputs() for _ in g.rollouts] for g in kept])


def group_of(prompt, *scored):
    return make_groups([prompt], [scored])[0]


def test_failed_verdicts_leave_their_group_and_are_counted(rng, model):
    prompts = [make_prompt(rng, model, text=t) for t in (3, 4, 5)]
    scored = [
        [make_scored(p, r, kind=FAILED if r is None else VerdictKind.CORRECT) for r in rewards]
        for p, rewards in zip(prompts, ([1.0, None, 0.0], [None, None, None], [1.0, 1.0, 1.0]), strict=True)
    ]
    groups = make_groups(prompts, scored)
    assert [(g.rewards, g.dropped) for g in groups] == [([1.0, 0.0], 1), ([], 3), ([1.0, 1.0, 1.0], 0)]
    assert [g.prompt for g in groups] == prompts
    assert group_metrics(groups, GRPO)["verifier_failures"] == 4
    samples = make_samples(groups, GRPO)
    assert [s.advantage for s in samples] == pytest.approx([1, -1], rel=1e-4), "a failure is no zero reward"


def test_groups_without_signal_give_no_samples(prompt):
    same = group_of(prompt, *[make_scored(prompt, 1.0)] * 4)
    lonely = group_of(prompt, make_scored(prompt, 1.0), make_scored(prompt, None))
    assert make_samples([same, lonely, group_of(prompt)], GRPO) == []


@pytest.mark.parametrize(
    ("rewards", "expected"), [([], False), ([1.0], False), ([0.0, 0.0], False), ([0.0, 1e-9], True)]
)
def test_signal(prompt, rewards, expected):
    assert has_signal(group_of(prompt, *(make_scored(prompt, r) for r in rewards)), GRPO) is expected


DYNAMIC = RLConfig(steps=1, loss=LossConfig(algorithm="grpo"), task_sampler=TaskSamplerConfig(name="dynamic"))
DAPO = RLConfig(steps=1, loss=LossConfig(algorithm="dapo"))
UNIFORM_DAPO = replace(DAPO, task_sampler=TaskSamplerConfig(name="uniform"))
PLUGIN_DAPO = replace(DAPO, rewards=(RewardConfig(use="reward.py:brevity"),))


@pytest.mark.parametrize(
    ("config", "kept"),
    [(GRPO, 3), (K15, 3), (PLUGIN_DAPO, 3), (DYNAMIC, 1), (DAPO, 1), (UNIFORM_DAPO, 1)],
    ids=["grpo", "kimi_k15", "dapo without the verifier", "grpo dynamic", "dapo", "dapo uniform"],
)
def test_dapo_and_dynamic_sampling_look_at_accuracy(prompt, config, kept):
    """Groups of all wrong and of all right completions have unlike rewards by their lengths alone."""
    wrong = [make_scored(prompt, -0.1 * i, kind=WRONG, length=i + 1) for i in range(3)]
    right = [make_scored(prompt, 1 - 0.1 * i, length=i + 1) for i in range(3)]
    groups = [group_of(prompt, *wrong), group_of(prompt, *right), group_of(prompt, wrong[0], *right[:2])]
    trained = groups_with_signal(groups, config)
    assert len(trained) == kept
    assert groups[2] in trained
    assert group_metrics(groups, config)["signal_share"] == kept / 3


def test_partial_credit_is_accuracy_too(prompt):
    def scored(credit):
        member = make_scored(prompt, credit, kind=WRONG)
        return replace(member, score=replace(member.score, verdict=replace(member.score.verdict, score=credit)))

    assert has_signal(group_of(prompt, scored(0.2), scored(0.7)), DAPO)
    assert not has_signal(group_of(prompt, scored(0.2), scored(0.2)), DAPO)


@pytest.mark.parametrize("weight", [0.01, 0.2, 5.0])
def test_the_weight_of_the_length_reward_cancels_in_a_group_of_all_right_answers(prompt, weight):
    group = group_of(prompt, *(make_scored(prompt, 1.0, length=n) for n in (2, 4, 10)))
    shaped = shape_by_length(group, LengthRewardConfig(weight=weight), step=0)
    expected = (np.array([0.5, 0.25, -0.5]) - 1 / 12) / np.std([0.5, 0.25, -0.5])
    assert [s.advantage for s in make_samples([shaped], GRPO)] == pytest.approx(expected.tolist(), rel=1e-3)
    assert [s.advantage for s in make_samples([shaped], K15)] == pytest.approx(
        [weight * (x - 1 / 12) for x in (0.5, 0.25, -0.5)]
    )
    assert make_samples([shaped], DAPO) == [], "DAPO trains on no such group"


def test_a_length_reward_whose_weight_cancels_is_pointed_out():
    length = LengthRewardConfig(weight=0.2)
    note = length_weight_note(replace(GRPO, length_reward=length))
    assert note is not None
    assert "rl.length_reward.weight = 0.2" in note
    for config in (GRPO, *(replace(c, length_reward=length) for c in (PLAIN, K15, DAPO, DYNAMIC))):
        assert length_weight_note(config) is None


@pytest.mark.parametrize(
    ("config", "expected"),
    [(GRPO, [3**0.5] + [-(3**-0.5)] * 3), (PLAIN, [0.75, -0.25, -0.25, -0.25]), (K15, [0.75, -0.25, -0.25, -0.25])],
)
def test_advantages_of_the_algorithm(prompt, config, expected):
    group = group_of(prompt, *(make_scored(prompt, r, length=i + 1) for i, r in enumerate([1.0, 0.0, 0.0, 0.0])))
    samples = make_samples([group], config)
    assert [s.advantage for s in samples] == pytest.approx(expected, rel=1e-5)
    assert [len(s.token_ids) for s in samples] == [1, 2, 3, 4]
    for sample in samples:
        assert sample.prompt is prompt, "samples share the prompt, and so its image"
        assert (sample.old_logprobs == -1.0).all(), "the policy's log-probs, not the sampler's"


LENGTH = LengthRewardConfig(weight=0.2, warmup_steps=5)


def test_the_length_reward_by_hand(prompt):
    """Lengths 2, 4, 6, 10 are lambda 0.5, 0.25, 0, -0.5; a wrong answer gets no bonus."""
    group = group_of(
        prompt,
        make_scored(prompt, 1.0, length=2),
        make_scored(prompt, 0.0, length=4, kind=WRONG),
        make_scored(prompt, 1.0, length=6),
        make_scored(prompt, 0.0, length=10, kind=WRONG),
    )
    shaped = shape_by_length(group, LENGTH, step=5)
    assert shaped.rewards == pytest.approx([1.1, 0.0, 1.0, -0.1])
    assert [m.score.parts["length"] for m in shaped.rollouts] == pytest.approx([0.5, 0.0, 0.0, -0.5])
    assert group.rewards == [1.0, 0.0, 1.0, 0.0], "nothing is filled in later"


def test_no_length_reward_during_the_warm_up(prompt):
    group = group_of(prompt, make_scored(prompt, 1.0, length=2), make_scored(prompt, 1.0, length=9))
    assert shape_by_length(group, LENGTH, step=4) is group
    assert shape_by_length(group, None, step=100) is group
    assert shape_by_length(group, LENGTH, step=5).rewards != group.rewards


def test_the_length_reward_of_equal_lengths_is_none(prompt):
    group = group_of(prompt, make_scored(prompt, 1.0), make_scored(prompt, 0.0, kind=WRONG))
    assert shape_by_length(group, LENGTH, step=9).rewards == [1.0, 0.0]
    assert shape_by_length(group_of(prompt), LENGTH, step=9).rollouts == ()


def test_permuted_rewards_are_the_same_rewards_elsewhere(rng, model):
    groups = []
    for i in range(6):
        prompt = make_prompt(rng, model, text=i + 2)
        rewards = [float(r) for r in rng.integers(0, 2, 4)]
        groups.append(group_of(prompt, *(make_scored(prompt, r, length=j + 1) for j, r in enumerate(rewards))))
    shuffled = permute_rewards(groups, seed=3)
    before, after = ([r for g in side for r in g.rewards] for side in (groups, shuffled))
    assert Counter(after) == Counter(before)
    assert after != before
    assert [r for g in permute_rewards(groups, seed=3) for r in g.rewards] == after
    assert [r for g in permute_rewards(groups, seed=4) for r in g.rewards] != after
    for old, new in zip(groups, shuffled, strict=True):
        assert [m.rollout for m in new.rollouts] == [m.rollout for m in old.rollouts]
        assert [m.score.verdict for m in new.rollouts] == [m.score.verdict for m in old.rollouts]
    assert permute_rewards([], seed=0) == []
    sums = [sum(g.rewards) for g in groups]
    assert any([sum(g.rewards) for g in permute_rewards(groups, seed=s)] != sums for s in range(5)), "between groups"


def test_metrics_by_hand(rng, model):
    a, b = make_prompt(rng, model, source="sums"), make_prompt(rng, model, source="shapes")
    thinking = "◁think▷1+1=2◁/think▷2"
    groups = make_groups(
        [a, b],
        [
            [
                make_scored(a, 1.0, length=4, text=thinking, parts={"verifier": 1.0, "format": 1.0}),
                make_scored(a, 0.0, kind=WRONG, length=8, finish="length", parts={"verifier": 0.0, "format": 0.0}),
            ],
            [
                make_scored(b, 0.0, kind=VerdictKind.NO_ANSWER, length=6, parts={"verifier": 0.0}),
                make_scored(b, None, kind=FAILED, length=99),
            ],
        ],
    )
    assert group_metrics(groups, GRPO) == pytest.approx(
        {
            "rollouts": 3,
            "reward": 1 / 3,
            "accuracy": 1 / 3,
            "accuracy/sums": 0.5,
            "accuracy/shapes": 0.0,
            "no_answer_share": 1 / 3,
            "verifier_failures": 1,
            "thinking_share": 1 / 3,
            "tokens_mean": 6.0,
            "truncated_share": 1 / 3,
            "repeat_share": 0.0,
            "signal_share": 0.5,
            "reward/verifier": 1 / 3,
            "reward/format": 1 / 3,
            **{f"patterns/{name}": 0.0 for name in ("planning", "evaluation", "reflection", "exploration")},
        }
    )


def test_a_pattern_is_the_share_of_rollouts_that_show_it_of_at_most_256(prompt):
    texts = ["7+4=12. wait, 7+4=11", "7+4=11. check: 11-4=7. check: 4+7=11", "11", "wait, hmm"]
    few = group_of(prompt, *[make_scored(prompt, 1.0, text=text) for text in texts])
    metrics = group_metrics([few], GRPO)
    assert (metrics["patterns/reflection"], metrics["patterns/evaluation"]) == (0.5, 0.25)
    many = [make_scored(prompt, 1.0, text="wait" if i % 3 == 0 else "no") for i in range(600)]
    assert group_metrics([group_of(prompt, *many)], GRPO)["patterns/reflection"] == 1.0  # every third is read


def test_metrics_of_a_step_in_which_every_verifier_failed(prompt):
    group = group_of(prompt, make_scored(prompt, None, kind=FAILED), make_scored(prompt, None, kind=FAILED))
    assert group_metrics([group], GRPO) == {"rollouts": 0.0, "verifier_failures": 2.0}
    assert group_metrics([], GRPO) == {"rollouts": 0.0, "verifier_failures": 0.0}
    assert np.isfinite(list(group_metrics([group], GRPO).values())).all()


def test_overlong_answers_by_hand(prompt):
    """DAPO eq. 13 with a limit of 10 and a buffer of 4: 6 tokens 0, 8 tokens -0.5, 10 tokens -1."""
    group = group_of(prompt, *(make_scored(prompt, 1.0, length=n) for n in (6, 8, 10)))
    shaped = shape_by_limit(group, limit=10, buffer=4)
    assert shaped.rewards == pytest.approx([1.0, 0.5, 0.0])
    assert [m.score.parts["overlong"] for m in shaped.rollouts] == pytest.approx([0.0, -0.5, -1.0])
    assert shape_by_limit(group, limit=10, buffer=0) is group


@pytest.mark.parametrize(
    ("loss", "given", "rewards"),
    [("dapo", None, [1.0, 0.0]), ("grpo", None, [1.0, 1.0]), ("grpo", 2, [1.0, 0.0]), ("dapo", 0, [1.0, 1.0])],
)
def test_the_buffer_is_the_recipes_or_the_algorithms(prompt, loss, given, rewards):
    """Of a limit of 10, DAPO's fifth is 2 tokens."""
    sampling = SamplingConfig(max_new_tokens=10)
    config = RLConfig(steps=1, loss=LossConfig(algorithm=loss), sampling=sampling, overlong_buffer=given)
    group = group_of(prompt, *(make_scored(prompt, 1.0, length=n) for n in (8, 10)))
    assert shape_rewards(group, config, step=0).rewards == pytest.approx(rewards)


def test_masked_completions_count_in_the_mean_and_are_not_trained_on(prompt):
    group = group_of(
        prompt, make_scored(prompt, 1.0, length=2), make_scored(prompt, 0.0, length=9, kind=WRONG, finish="length")
    )
    loss = LossConfig(algorithm="dr_grpo")
    assert [s.advantage for s in make_samples([group], RLConfig(steps=1, loss=loss))] == [0.5, -0.5]
    [kept] = make_samples([group], RLConfig(steps=1, loss=loss, mask_truncated=True))
    assert (kept.advantage, len(kept.token_ids)) == (0.5, 2)


@pytest.mark.parametrize(("algorithm", "kept"), [("grpo", 1), ("reinforce_pp", 2), ("ppo", 2)])
def test_groups_of_equals_teach_where_the_baseline_is_not_the_groups(prompt, algorithm, kept):
    groups = [group_of(prompt, *[make_scored(prompt, 1.0)] * 2), group_of(prompt)]
    groups.append(group_of(prompt, make_scored(prompt, 1.0), make_scored(prompt, 0.0)))
    assert len(groups_with_signal(groups, RLConfig(steps=1, loss=LossConfig(algorithm=algorithm)))) == kept


@pytest.mark.parametrize("algorithm", ["grpo", "reinforce_pp"])
def test_groups_of_equals_count_in_the_deviation_of_the_step(prompt, algorithm):
    """Rewards (1, 0) and three times (1, 1) less their group's mean: deviation sqrt(0.5 / 8) = 1/4, as in verl."""
    groups = [group_of(prompt, make_scored(prompt, 1.0), make_scored(prompt, 0.0))]
    groups += [group_of(prompt, *[make_scored(prompt, 1.0)] * 2) for _ in range(3)]
    loss = LossConfig(algorithm=algorithm, advantage="group_global_std", kl=KLConfig(coef=0))
    samples = make_samples(groups, RLConfig(steps=1, loss=loss))
    assert [s.advantage for s in samples] == pytest.approx([2.0, -2.0, *[0.0] * 6])


@pytest.mark.parametrize(("placement", "kept"), [("reward", 2), ("loss", 1)])
def test_a_kl_in_the_reward_tells_equals_apart(prompt, placement, kept):
    """Groups of one answer still have no baseline."""
    loss = LossConfig(algorithm="rloo", kl=KLConfig(coef=0.1, estimator="k3", placement=placement))
    groups = [group_of(prompt, *[make_scored(prompt, 1.0)] * 3), group_of(prompt, make_scored(prompt, 1.0))]
    groups.append(group_of(prompt, make_scored(prompt, 1.0), make_scored(prompt, 0.0)))
    assert len(groups_with_signal(groups, RLConfig(steps=1, loss=loss))) == kept


def test_what_samples_carry(prompt):
    """The learner's log-probs become the ratio's denominator where it was asked for them; the rest are columns."""
    group = group_of(prompt, make_scored(prompt, 1.0), make_scored(prompt, 0.0, kind=WRONG))
    config = RLConfig(steps=1, loss=LossConfig(algorithm="grpo", correction=CorrectionConfig(), kl=KLConfig(coef=0.1)))
    note = ModelOutputs(policy_logprobs=np.full(3, -0.7, np.float32), reference_logprobs=np.full(3, -0.9, np.float32))
    good, bad = make_samples([group], config, note)
    assert good.old_logprobs.tolist() == pytest.approx([-0.7] * 3)
    assert good.columns["sampler_logprobs"].tolist() == pytest.approx([-0.5] * 3)
    assert good.columns["reference_logprobs"].tolist() == pytest.approx([-0.9] * 3)
    assert (good.sft_mask, bad.sft_mask) == (True, False)
    assert sample_metrics([good, bad]) == {"kl_reference": pytest.approx(np.exp(-0.2) + 0.2 - 1, rel=1e-5)}
    assert sample_metrics([]) == {}


def test_a_sample_refuses_unknown_and_ragged_columns(prompt):
    [sample, _] = make_samples([group_of(prompt, make_scored(prompt, 1.0), make_scored(prompt, 0.0))], GRPO)
    for columns in ({"value": np.zeros(3)}, {"returns": np.zeros(2)}):
        with pytest.raises(ValueError, match="column"):
            replace(sample, columns=columns)


def test_answers_that_repeat_themselves_pay(prompt):
    group = group_of(prompt, make_scored(prompt, 1.0, finish="repeat"), make_scored(prompt, 1.0, parts={"format": 0.5}))
    assert penalize_repeats(group, 0.0) is group
    dearer = penalize_repeats(group, 0.25)
    assert dearer.rewards == [0.75, 1.0]
    assert [m.score.parts for m in dearer.rollouts] == [{"repeat": -1.0}, {"format": 0.5, "repeat": 0.0}]
    assert group_metrics([dearer], GRPO)["repeat_share"] == 0.5
    assert group.rewards == [1.0, 1.0], "the group itself is as before"


def test_a_penalty_that_nothing_can_earn_is_refused():
    with pytest.raises(ValueError, match=r"repeat_penalty = 0.5: must be 0 where sampling.repeat_window is 0"):
        RLConfig(steps=1, repeat_penalty=0.5)
    RLConfig(steps=1, repeat_penalty=0.5, sampling=SamplingConfig(repeat_window=64))
