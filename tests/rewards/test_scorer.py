"""The weighted sum, streaming and concurrency: the parts, what a failure does, mistakes found before any work."""

import math
import pickle
import threading

import pytest

from configs.rewards import RewardConfig
from rewards.plugins.interface import PluginError
from rewards.scorer import Scorer
from rewards.types import Task, VerdictKind
from rewards.verifiers.base import BuiltInVerifier
from rewards.verifiers.builtin import VERIFIERS


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
    with pytest.raises(PluginError, match="more than once for every verifier"):
        Scorer((RewardConfig(), RewardConfig(weight=2.0)))
    with pytest.raises(PluginError, match="more than once for choice;"):
        Scorer((RewardConfig(only_for=("math", "choice")), RewardConfig(only_for=("choice", "text"))))
    with pytest.raises(PluginError, match="NO_SUCH_KEY, which is not set"):
        Scorer((RewardConfig(use="mine.py:f", env=("NO_SUCH_KEY",)),))
    with pytest.raises(PluginError, match="importing 'no_such_library', which its `imports` name, failed"):
        Scorer((RewardConfig(use="mine.py:f", imports=("no_such_library",)),))


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
    with Scorer((RewardConfig(),), base=tmp_path, allowed=["near.py:near"]) as scorer:
        tasks = [task("10", verifier="near.py:near")] * 3
        exact, close, broken = scorer.score(["10", "13", "ten"], tasks)
    assert (exact.reward, exact.verdict.kind) == (1.0, VerdictKind.CORRECT)
    assert math.isclose(close.reward, 0.25)
    assert close.verdict.kind is VerdictKind.WRONG
    assert (broken.reward, broken.verdict.kind) == (None, VerdictKind.CRASH)
    assert "ValueError" in broken.verdict.detail


@pytest.mark.parametrize("spec", ["mine.py:f", "os:getpid", "trl:mine.py:f", "verl:os:getpid", "math.py:f", "an_entry"])
def test_a_task_runs_no_code_that_is_not_allowed(tmp_path, monkeypatch, spec):
    """A row of data may name built-in verifiers only; the rest must be allowed by its whole name."""
    monkeypatch.chdir(tmp_path)
    mark = tmp_path / "ran"
    for name in ("mine.py", "math.py"):
        (tmp_path / name).write_text(
            f"open({str(mark)!r}, 'w')\ndef f(response, reference, *, task):\n    return 1.0\n"
        )
    other = RewardConfig(only_for=("math", "other.py:f"))
    for terms in ((), (RewardConfig(use="format"),), (other, RewardConfig(use="format", only_for=("math",)))):
        with Scorer(terms, base=tmp_path, allowed=["other.py:f", "mine"]) as scorer:
            for call in (scorer.check_tasks, lambda tasks: scorer.score(["1"], tasks)):
                with pytest.raises(PluginError, match=r"no other code|no reward is for") as caught:
                    call([task("1", verifier=spec)])
        if not terms:
            assert f"add `{spec}` to `data.verifiers`" in str(caught.value)
    assert not mark.exists()


def test_terms_may_be_for_some_verifiers_only():
    terms = (
        RewardConfig(only_for=("math",)),
        RewardConfig(weight=0.5, only_for=("text",)),
        RewardConfig(use="format", weight=0.25, only_for=("text",)),
    )
    with Scorer(terms) as scorer:
        answers = ["◁think▷ hm ◁/think▷ 19", "◁think▷ hm ◁/think▷ teal"]
        number, word = scorer.score(answers, [task(), task("teal", verifier="text")])
        assert (number.reward, dict(number.parts)) == (1.0, {"verifier": 1.0})
        assert (word.reward, dict(word.parts)) == (0.75, {"verifier": 1.0, "format": 1.0})
        with pytest.raises(PluginError, match=r"no reward is for its verifier 'choice'; add that to the `only_for`"):
            scorer.check_tasks([task("A", verifier="choice", choices=("a", "b"))])


SLOW = """
import time
from pathlib import Path

def chain(response, reference, *, task):  # ends once the next one has
    number = int(response.split()[0])
    while not Path(task.source, str(number + 1)).exists():
        time.sleep(0.01)
    Path(task.source, str(number)).touch()
    return 1.0
"""


def test_scoring_overlaps_with_what_the_caller_does(tmp_path):
    (tmp_path / "slow.py").write_text(SLOW)
    gate = Task(id="t", source=str(tmp_path), question="?", answer="19")
    with Scorer((RewardConfig(use="slow.py:chain", workers=1, seconds=60),), base=tmp_path) as scorer:
        (future,) = scorer.submit(["1\n19"], gate)  # ends when the caller has gone on and opened the gate
        assert not future.done()
        (tmp_path / "2").touch()
        assert future.result(60).reward == 1.0


ANSWERS = [
    "19",
    "x+1",
    "(x+1)^2/(x+1)",
    "x-1",
    "\\boxed{\\frac{x^2-1}{x-1}}",
    "",
    "1 or 2",
    "2x",
    "sin(x)^2+cos(x)^2+x",
    "\\boxed{\\Re(x)+1}",  # for a worker, as the next
    "\\boxed{\\begin{pmatrix}1\\end{pmatrix}\\begin{pmatrix}2\\end{pmatrix}}",
]


def test_results_are_the_same_however_they_are_got():
    texts = ANSWERS
    tasks = [task("x+1" if i % 3 else "19", verifier="math") for i in range(len(texts))]
    with Scorer((RewardConfig(), RewardConfig(use="format")), seconds=20, workers=1) as scorer:
        alone = [scorer.score([text], [one])[0] for text, one in zip(texts, tasks, strict=True)]

    def bare(scores):
        return [(s.reward, s.verdict.kind, s.verdict.rule, s.verdict.extracted, dict(s.parts)) for s in scores]

    with Scorer((RewardConfig(), RewardConfig(use="format")), seconds=20, workers=3) as scorer:
        assert bare(scorer.score(texts, tasks)) == bare(alone)
        futures = [future for text, one in zip(texts, tasks, strict=True) for future in scorer.submit([text], one)]
        assert bare(future.result(60) for future in futures) == bare(alone)
        threaded = {}
        threads = [
            threading.Thread(target=lambda n=n: threaded.update({n: scorer.score(texts, tasks)})) for n in range(2)
        ]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        assert [bare(threaded[n]) for n in range(2)] == [bare(alone)] * 2
    assert {s.verdict.kind.value for s in alone} == {"correct", "wrong", "no_answer"}
    assert any(s.verdict.rule.endswith("algebra") for s in alone)


def test_the_time_in_the_verdict_holds_the_workers_share(scorer):
    (score,) = scorer.score(["\\boxed{\\Re(x)+1}"], [task("1+\\Re(x)")])
    assert score.verdict.rule == "box/algebra"
    assert 0.0005 < score.verdict.seconds < 20


def test_a_verifier_that_waits_runs_in_threads(monkeypatch):
    from rewards.types import Verdict

    class Service(BuiltInVerifier):
        blocking = True

        def __call__(self, response, reference, *, task):
            together.wait(60)  # opens when all sixteen are here
            return Verdict(kind=VerdictKind.CORRECT, score=1.0, rule=threading.current_thread().name)

    monkeypatch.setattr("rewards.verifiers.builtin.VERIFIERS", {"service": Service})
    together = threading.Barrier(16)
    with Scorer(()) as scorer:
        scores = scorer.score(["a"] * 16, [task(verifier="service")] * 16)
    assert all(s.verdict.rule.startswith("thinkvl-reward") for s in scores)


def test_a_mistake_in_a_built_in_verifier_is_a_crash_of_ours(monkeypatch):
    class Broken(BuiltInVerifier):
        needs_worker = True

        def __init__(self, worker):
            self.worker = worker

        def __call__(self, response, reference, *, task):
            self.worker.call({"gold": "x", "answer": response})
            raise KeyError("ours")

    monkeypatch.setattr("rewards.verifiers.builtin.VERIFIERS", {"broken": Broken})
    with Scorer(()) as scorer, pytest.raises(KeyError, match="ours"):
        scorer.score(["x"], [task(verifier="broken")])


@pytest.mark.parametrize("answer", [None, 5, 0.5, True, ["cat", "kitty"], {"a": 1}, b"19"])
@pytest.mark.parametrize("verifier", sorted(VERIFIERS))
def test_a_reference_that_is_no_text_is_a_bad_reference(scorer, answer, verifier):
    needed = {"numeric": "rel=0.1", "point": "radius=1", "mathvista": "kind=integer"}
    spec = f"{verifier}({needed[verifier]})" if verifier in needed else verifier
    (score,) = scorer.score(["\\boxed{19}"], [task(answer, verifier=spec)])
    assert (score.reward, score.verdict.kind) == (None, VerdictKind.BAD_REFERENCE)
    assert type(answer).__name__ in score.verdict.detail


def test_what_a_plugin_raises_reaches_no_terminal(tmp_path):
    """Escape sequences, C1 controls, bidirectional overrides and lone surrogates of an error become `?`."""
    hostile = "a\x1b]8;;http://x\x07b\x9b31mc\u202ed\ud800"
    (tmp_path / "loud.py").write_text(f"def f(response, reference, *, task):\n    raise ValueError({hostile!r})\n")
    (tmp_path / "early.py").write_text(f"raise ValueError({hostile!r})\n")
    for in_process in (False, True):
        terms = (RewardConfig(), RewardConfig(use="loud.py:f", in_process=in_process))
        with Scorer(terms, base=tmp_path) as scorer:
            (score,) = scorer.score(["19"], [task()])
        assert score.failures["loud.py:f"].detail.endswith("a?]8;;http://x?b?31mc?d?")
        with pytest.raises(PluginError, match=r"a\?\]8;;http://x\?b\?31mc\?d\?"):
            Scorer((RewardConfig(use="early.py:f", in_process=in_process),), base=tmp_path)


def test_no_responses_are_no_scores(scorer):
    assert scorer.score([], []) == []
