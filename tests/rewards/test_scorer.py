"""The weighted sum: its parts, what a failure does to it, and mistakes that are found before any work starts."""

import math
import pickle

import pytest

from configs.rewards import RewardConfig
from rewards.plugins import PluginError
from rewards.scorer import Scorer
from rewards.types import Task, VerdictKind


def task(answer="19", **more):
    return Task(id="t/1", source="unit", question="?", answer=answer, **more)


@pytest.fixture(scope="module")
def scorer():
    with Scorer((RewardConfig(), RewardConfig(use="format", weight=0.25))) as made:
        yield made


def test_weighted_sum_with_its_breakdown(scorer):
    texts = ["◁think▷ 7 + 12 ◁/think▷ 19", "19", "◁think▷ hm ◁/think▷ 18", "◁think▷ 19"]
    scores = scorer.score(texts, [task()] * 4)
    assert [s.reward for s in scores] == [1.25, 1.0, 0.25, 0.0]
    assert scores[0].parts == {"verifier": 1.0, "format": 1.0}
    assert [s.verdict.kind.value for s in scores] == ["correct", "correct", "wrong", "no_answer"]


def test_each_task_is_judged_by_its_own_verifier(scorer):
    tasks = [
        task("1/2"),
        task("B", verifier="choice", choices=("cat", "dog")),
        task("teal", verifier="text"),
    ]
    scores = scorer.score(["0.5", "The answer is (B).", "Teal."], tasks)
    assert [s.verdict.kind for s in scores] == [VerdictKind.CORRECT] * 3


def test_a_bad_reference_has_no_reward_and_is_counted():
    with Scorer(()) as scorer:
        (score,) = scorer.score(["5"], [task("{")])
        assert score.reward is None
        assert score.verdict.kind is VerdictKind.BAD_REFERENCE
        assert score.failures["verifier"].kind is VerdictKind.BAD_REFERENCE
        assert scorer.failures == {"verifier/bad_reference": 1}


def test_no_terms_means_the_verifier_alone():
    with Scorer(()) as scorer:
        assert scorer.score(["19"], [task()])[0].reward == 1.0


def test_a_failure_of_one_term_loses_the_reward_but_not_the_verdict(tmp_path):
    (tmp_path / "bad.py").write_text("def f(response, reference, *, task):\n    return float('nan')\n")
    with Scorer((RewardConfig(), RewardConfig(use="bad.py:f", weight=0.5)), base=tmp_path) as scorer:
        (score,) = scorer.score(["19"], [task()])
    assert score.reward is None
    assert score.parts == {"verifier": 1.0}
    assert "nan" in score.failures["bad.py:f"].detail
    assert score.verdict.kind is VerdictKind.CORRECT


def test_mistakes_are_found_when_it_is_built():
    with pytest.raises(PluginError, match="did you mean 'format'"):
        Scorer((RewardConfig(use="formt"),))
    with pytest.raises(PluginError, match="more than once"):
        Scorer((RewardConfig(), RewardConfig(weight=2.0)))


def test_an_unknown_task_verifier_names_the_task_and_the_nearest():
    with Scorer(()) as scorer:
        for call in (lambda t: scorer.check_tasks([t]), lambda t: scorer.score(["1"], [t])):
            with pytest.raises(PluginError, match=r"task 't/1' of 'unit'.*did you mean 'choice'"):
                call(task(verifier="choices"))


def test_lengths_must_agree(scorer):
    with pytest.raises(ValueError, match="1 responses for 2 tasks"):
        scorer.score(["1"], [task(), task()])


def test_it_pickles_as_its_configuration_and_so_do_scores(scorer):
    scores = scorer.score(["x + 1"], [task("1 + x")])
    assert pickle.loads(pickle.dumps(scores)) == scores
    copy = pickle.loads(pickle.dumps(scorer))
    assert copy.score(["19"], [task()])[0].reward == 1.0
    copy.close()


def test_a_task_may_name_a_plugin_as_its_verifier(tmp_path):
    (tmp_path / "near.py").write_text(
        "def near(response, reference, *, task):\n    return 1 / (1 + abs(float(response) - float(reference)))\n"
    )
    with Scorer((RewardConfig(),), base=tmp_path) as scorer:
        tasks = [task("10", verifier="near.py:near")] * 3
        exact, close, broken = scorer.score(["10", "13", "ten"], tasks)
    assert (exact.reward, exact.verdict.kind) == (1.0, VerdictKind.CORRECT)
    assert math.isclose(close.reward, 0.25)
    assert close.verdict.kind is VerdictKind.WRONG
    assert (broken.reward, broken.verdict.kind) == (None, VerdictKind.CRASH)
    assert "ValueError" in broken.verdict.detail
