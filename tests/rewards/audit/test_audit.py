"""The audit finds what is wrong with data and verifiers, and nothing where nothing is."""

import io
import json

import pytest
from PIL import Image

from rewards import Scorer, Task, Verdict, VerdictKind
from rewards.audit.cases import cheats, gold_case, rewritings
from rewards.audit.check import Auditor
from rewards.audit.data import CODES, Duplicates, Finding, fingerprint
from rewards.audit.page import AuditReport, CheckedTask, SourceSummary, as_json, as_page

GOLDS = {  # verifier -> references, each of which is wrong for the others
    "math": ["3/4", "12345", "-7", "\\sqrt{2}", "x^2+1", "(1, 2)", "\\frac{\\pi}{3}", "0.25"],
    "text": ["teal", "a rectangle", "yes", "no", "7", "New York"],
    "exact": ["Ab 12", "foo_bar()", "x.", "{a}"],
    "yes_no": ["yes", "No", "不是"],
    "count": ["3", "0", "1250", "twelve"],
    "numeric(rel=0.01)": ["3.5", "1,500", "45%", "-2", "6.02e23"],
    "ocr": ["Hello, world", "first line\nsecond line", "日本語 テキスト", "price: $3.50 {net}"],
    "box": ["[10, 20, 50, 38]", "[[0, 0, 9, 9], [20, 20, 40, 40]]", '[{"bbox_2d": [1, 2, 30, 40], "label": "cat"}]'],
    "point(radius=3)": ["[10, 20]", "[300, 20]", "[[1, 2], [50, 60]]"],
    "json": ['{"a": 1, "b": [1, 2]}', "[1, 2]", '{"name": "x y", "n": null}', '"word"', "12"],
}
CHOICES = ("red", "dark red", "blue", "3/4")


def task(answer, verifier="math", question="What is it?", **more):
    return Task(id=more.pop("id", "t"), source="unit", question=question, answer=answer, verifier=verifier, **more)


@pytest.fixture(scope="module")
def scorer():
    with Scorer(()) as made:
        yield made


@pytest.fixture
def auditor(scorer):
    return Auditor(judge=lambda texts, task: [s.verdict for s in scorer.score(texts, [task] * len(texts))])


@pytest.mark.parametrize("verifier", GOLDS)
def test_good_data_is_clean(auditor, verifier):
    golds = GOLDS[verifier]
    found = [f for gold in golds for f in auditor.check(task(gold, verifier), golds)]
    assert [(f.answer, f.message, f.response, f.verdict) for f in found] == []
    assert auditor.verifications > 10 * len(golds)


def test_good_choices_are_clean(auditor):
    found = [f for letter in "ABCD" for f in auditor.check(task(letter, "choice", choices=CHOICES), list("ABCD"))]
    assert [(f.answer, f.message, f.response) for f in found] == []


def judged(kind, when=lambda response: True):
    """A verifier that says `kind` where `when` holds, and else what an honest one would of gold `5`."""

    def judge(responses, _):
        kinds = [kind if when(r) else VerdictKind.CORRECT if "5" in r else VerdictKind.WRONG for r in responses]
        return [Verdict(kind=k, score=float(k is VerdictKind.CORRECT)) for k in kinds]

    return judge


def test_a_verifier_that_takes_everything():
    auditor = Auditor(judge=judged(VerdictKind.CORRECT))
    found = auditor.check(task("5", "numeric(abs=9)"), ["6", "7", "8"])
    assert {f.code for f in found} == {"cheat-accepted"}
    names = {f.message.removeprefix("accepted: ") for f in found}
    assert names >= {
        "empty", "blank", "empty box", "only thinking", "thinking left open", "hedge", "hedged sentence", "very long",
        "list of answers", "flood of lines", "the question, copied", "the reference of another row, '6'",
    }  # fmt: skip


def test_a_verifier_that_takes_nothing_or_fails():
    for kind, code in [
        (VerdictKind.WRONG, "gold-rejected"),
        (VerdictKind.BAD_REFERENCE, "bad-gold"),
        (VerdictKind.CRASH, "verifier-failed"),
        (VerdictKind.TIMEOUT, "verifier-failed"),
    ]:
        found = Auditor(judge=judged(kind)).check(task("5"), ["6"])
        assert found[0].code == code
        assert code in CODES
    picky = Auditor(judge=judged(VerdictKind.WRONG, lambda response: "<answer>" in response))
    assert [f.message for f in picky.check(task("5"), ["6"]) if f.code == "rewriting-rejected"] == [
        "the reference is not accepted when written so: tag"
    ]


def test_a_reference_that_only_its_copy_satisfies(auditor):
    found = auditor.check(task("\\foo{x}+"), ["3/4"])
    assert [f.code for f in found] == ["bad-gold"]
    assert auditor.check(task("\\frac{1}{"), ["3/4"])[0].code == "bad-gold"


def test_a_tolerance_that_takes_other_rows(auditor):
    found = auditor.check(task("2001", "numeric(rel=0.05)"), ["1998", "1500"])
    assert [f.message for f in found] == ["accepted: the reference of another row, '1998'"]
    assert auditor.check(task("0.5"), ["1/2"]) == [], "equal by value is not cheating"


def test_options(auditor):
    found = auditor.check(task("C", "choice", choices=("1/2", "0.5", "Three", "three ")), [])
    assert [f.message for f in found if f.code == "ambiguous-choices"] == [
        "options A and B are the same: '1/2' and '0.5'",
        "options C and D are the same: 'Three' and 'three '",
    ]
    assert auditor.check(task("E", "choice", choices=("a", "b")), [])[0].code == "bad-gold"


def test_what_depends_on_the_reference_alone_is_tried_once(auditor):
    auditor.check(task("5"), ["6"])
    before = auditor.verifications
    assert auditor.check(task("5", question="Another question?", id="u"), ["6"]) == []
    assert auditor.verifications == before + 1, "only the copied question"


def test_a_judge_is_not_asked(auditor):
    assert auditor.check(task("5", "judge"), []) == []
    assert (auditor.verifications, auditor.not_tried) == (0, {"judge": 1})


def test_duplicates():
    red, blue = b"red", b"blue"
    seen = Duplicates()
    assert seen.check(task("5", question="How many?", images=(red,), id="a"), "train") == []
    assert seen.check(task("5", question="How many?", images=(blue,), id="b"), "train") == []
    [found] = seen.check(task("5", question=" how MANY ", images=(red,), id="c"), "train")
    assert (found.code, found.message) == ("duplicate", "question of a, with the same reference")
    [found] = seen.check(task("6", question="How many?", images=(red,), id="d"), "train")
    assert (found.code, found.message) == ("conflict", "question of a, with '5' as its reference")
    [found] = seen.check(task("5", question="How many?", images=(red,), id="e"), "held_out")
    assert (found.code, found.message) == ("leak", "this held_out task is the training task a")
    assert fingerprint(task("1", question="Two words?")) != fingerprint(task("1", question="Twowords?"))


def test_rewritings_of_each_kind():
    def names(made):
        return {case.name for case in rewritings(made)}

    assert {"LaTeX fraction", "dollars"} <= names(task("3/4"))
    assert "thousands separators" in names(task("12345"))
    assert {"letter", "lower case", "option text", "letter and text"} <= names(task("A", "choice", choices=CHOICES))
    assert "in words" in names(task("3", "count"))
    assert {"code fence", "other order of keys"} <= names(task('{"a": 1, "b": 2}', "json"))
    assert gold_case(task("{[(")).response.endswith("<answer>{[(</answer>"), "braces that a box could not hold"
    long = next(case for case in cheats(task("5"), ["6"]) if case.name == "very long")
    assert len(long.response) > 100_000


def report(findings, samples=()):
    source = SourceSummary(name="unit", role="held_out", checked=3, total=None, left_out=1)
    return AuditReport(
        data="<data>", sources=[source], findings=findings, ignored={"leak": 2}, not_tried={"judge": 1},
        verifications=12, seconds=3.21, samples=samples,
    )  # fmt: skip


def test_page_and_json(auditor):
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    evil = task("<b>", "text", question="<script>alert(1)</script>", images=(file.getvalue(),))
    finding = Finding(code="cheat-accepted", message="m", response="<i>" * 100, verdict="correct, x").on(evil)
    page = as_page(report([finding], [CheckedTask(task=evil, tried=auditor.tried(evil, ["a", "b", "c"]))]))
    assert "<script>" not in page
    assert "<i>" not in page
    for text in (
        "&lt;data&gt;",
        "unit (held_out)",
        "endless",
        "1 finding",
        "data:image/*;base64,",
        "(2 ignored)",
        "very long",
    ):
        assert text in page
    data = as_json(report([finding]))
    assert json.loads(json.dumps(data)) == data
    assert (data["clean"], data["counts"], data["seconds"]) == (False, {"cheat-accepted": 1}, 3.2)
    assert data["findings"][0]["task_id"] == "t"
    hidden = "".join(map(chr, [0x1B, 0x9B, 0x202E, 0xD800, 0x7F, 0]))
    unseen = Task(id=f"i{hidden}", source="s", question=f"q{hidden}", answer=f"a{hidden}")
    page = as_page(
        report([Finding(code="conflict", message=f"m{hidden}").on(unseen)], [CheckedTask(task=unseen, tried=[])])
    )
    assert not set(hidden) & set(page), "no control, bidirectional override or lone surrogate reaches the page"
    assert "m??????" in page
    clean = as_page(report([]))
    assert "no findings" in clean
    assert "class=bad" not in clean
