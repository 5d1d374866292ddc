"""`numeric(rel=0.01)`: strict reading, clear errors, and the way through the scorer."""

import pytest

from configs.rewards import RewardConfig
from rewards import Scorer, Task, VerdictKind
from rewards.plugins.interface import PluginError
from rewards.shaping import TERMS
from rewards.verifiers.builtin import JUDGE, VERIFIERS, build_verifier, is_built_in
from rewards.verifiers.options import base_name, make, parse_spec


def test_reading():
    assert parse_spec("math").options == {}
    assert parse_spec(" ocr( threshold = 0.8 , case=false,partial=true ) ").options == {
        "threshold": 0.8, "case": False, "partial": True,
    }  # fmt: skip
    assert parse_spec("numeric(abs=2,rel=1e-3)").options == {"abs": 2, "rel": 0.001}
    assert base_name("file.py:f") == "file.py:f"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("numeric(rel=0.01", "must be a name, or a name with options such as"),
        ("numeric(0.01)", r"'0.01' is no option; write `name=value`"),
        ("numeric(rel=0.1, rel=0.2)", "the option 'rel' is given twice"),
        ("numeric(rel=__import__('os'))", "is no option"),
        ("numeric(rel=big)", r"rel = 'big': must be a number"),
        ("numeric(rel=true)", r"rel = True: must be a number"),
        ("numeric(rel=2)", r"rel = 2: must be at least 0 and less than 1"),
        ("numeric(ref=0.1)", r"ref: no such option \(did you mean 'rel'\?\); allowed are rel, abs"),
        ("math(rel=0.1)", "rel: no such option; math takes none"),
        ("ocr(case=1)", "case = 1: must be true or false"),
        ("ocr(threshold=0.2)", "threshold = 0.2: must be between 0.5 and 1"),
        ("box(coordinates=pixels)", "coordinates = 'pixels': must be one of auto, thousand"),
        ("numerics", r"unknown \(did you mean 'numeric'\?\); allowed are box, "),
        ("judge(url=http://x)", "unknown"),
        ("numeric" * 20, "must be a name"),
    ],
)
def test_mistakes(spec, message):
    with pytest.raises(PluginError, match=message):
        build_verifier(spec, None)


def test_options_of_terms():
    assert make(TERMS, "repetition(n=3)")
    with pytest.raises(PluginError, match=r"n = 1.5: must be a whole number"):
        make(TERMS, "repetition(n=1.5)")
    with pytest.raises(PluginError, match="n = 0: must be 1 or more"):
        make(TERMS, "repetition(n=0)")
    with pytest.raises(PluginError, match=r"needs size=\.\.\."):
        make({"needy": _needy}, "needy")


def _needy(*, size: int) -> int:
    return size


def test_every_built_in_is_known_by_name():
    assert all(is_built_in(name) and is_built_in(f"{name}()") for name in (*VERIFIERS, JUDGE))
    assert not is_built_in("numeric.py:f")


def test_through_the_scorer():
    def task(verifier, answer="100"):
        return Task(id="1", source="unit", question="?", answer=answer, verifier=verifier)

    tasks = [task("numeric(rel=0.05)"), task("numeric"), task("count"), task("json", "[1]"), task("box", "[1,2,3,4]")]
    with Scorer(()) as scorer:
        scorer.check_tasks(tasks)
        scores = scorer.score(["104", "104", "100", "[1.0]", "(1,2),(3,4)"], tasks)
        with pytest.raises(PluginError, match=r"task '1' of 'unit': its verifier: 'numeric\(rel=9\)': rel = 9"):
            scorer.check_tasks([task("numeric(rel=9)")])
        with pytest.raises(PluginError, match="did you mean 'numeric'"):
            scorer.check_tasks([task("numerik")])
    kinds = [score.verdict.kind for score in scores]
    assert kinds == [VerdictKind.CORRECT, VerdictKind.WRONG, *[VerdictKind.CORRECT] * 3]


def test_terms_through_the_scorer():
    terms = (
        RewardConfig(),
        RewardConfig(use="repetition(n=1)", weight=0.1),
        RewardConfig(use="language"),
    )
    task = Task(id="1", source="unit", question="What is shown?", answer="cat cat", verifier="text")
    with Scorer(terms) as scorer:
        [score] = scorer.score(["cat cat"], [task])
        assert score.parts == {"verifier": 1.0, "repetition": -0.5, "language": 0.0}
        assert score.reward == pytest.approx(1 - 0.05)
    with pytest.raises(PluginError, match="name repetition more than once"):
        Scorer((RewardConfig(use="repetition"), RewardConfig(use="repetition(n=3)")))
