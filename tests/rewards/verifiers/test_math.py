"""Which answers equal which references, by rule; hostile answers among them."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.sandbox.pool import WorkerPool
from rewards.types import Task, VerdictKind
from rewards.verifiers.math import MathVerifier


@pytest.fixture(scope="module")
def verify():
    worker = WorkerPool(seconds=10.0)
    verifier = MathVerifier(worker)

    def judge(response, gold):
        return verifier(response, gold, task=Task(id="m", source="unit", question="", answer=gold))

    yield judge
    worker.close()


EQUAL = [
    ("7", "7"), ("7", "7.0"), ("7", "+7"), ("7", "07"), ("-3", "−3"), ("1/8", "0.125"), ("0.125", "\\dfrac18"),
    ("3/4", "\\frac{6}{8}"), ("2500", "2,500"), ("2500", "2{,}500"), ("2500", "2\\,500"), ("2500", "2500.00"),
    ("7/2", "3 1/2"), ("7/2", "3\\frac{1}{2}"), ("7/2", "3½"), ("45%", "0.45"), ("0.45", "45 percent"), ("45%", "45"),
    ("45", "45\\%"), ("0.003", "3 \\times 10^{-3}"), ("0.003", "3e-3"), ("1/3", "0.\\overline{3}"),
    ("2/7", "0.2857142857"), ("64", "2^6"), ("x", "$x$"), ("12", "12\\text{ cm}^2"), ("12 cm", "12"),
    ("12 meters", "12 m"), ("60^\\circ", "60"), ("60", "60°"), ("\\frac{\\pi}{3}", "60^\\circ"), ("5", "\\$5"),
    ("5", "x = 5"), ("y=5", "5"), ("5", "5 = x"), ("19", "7 + 4 \\times 3 = 19"), ("\\sqrt{12}", "2\\sqrt3"),
    ("\\sqrt{12}", "2*sqrt(3)"), ("x^2-1", "(x-1)(x+1)"), ("\\sin^2 t", "1-\\cos^2 t"), ("e^{2x}", "(e^x)^2"),
    ("\\frac{a+b}{c}", "\\frac ac + \\frac bc"), ("2 \\pm \\sqrt{5}", "2+\\sqrt{5}, 2-\\sqrt{5}"),
    ("1, 2, 3", "3, 1, 2"), ("\\{1,2\\}", "2, 1"), ("4 and 9", "9, 4"), ("4,9", "4 \\text{ or } 9"),
    ("(3, -1)", "(3,-1)"), ("(1/2, 4)", "(0.5, 4)"), ("(2,251,252)", "(2, 251, 252)"), ("[0, 2)", "0 \\le x < 2"),
    ("x > 4", "(4, \\infty)"), ("x>4", "4<x"), ("x<1 \\text{ or } x>3", "(-\\infty,1)\\cup(3,\\infty)"),
    ("\\{x | 0 < x < 1\\}", "(0,1)"), ("2x+y=3", "y = 3-2x"), ("y=3x-1", "3x-1"), ("2x+y=3", "4x + 2y = 6"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\begin{bmatrix} 1 & 2 \\\\ 3 & 4 \\end{bmatrix}"),
    ("\\begin{pmatrix}1\\\\1/2\\end{pmatrix}", "(1, \\frac12)"), ("1+2i", "2i + 1"), ("n\\pi", "k\\pi"),
    ("\\text{Monday}", "monday"), ("no solution", "No solution."), ("5:8", "5/8"), ("3!", "6"),
    ("2^{100}", "2^{100}"), ("10^{80}", "10^{80}"), ("\\binom{9}{4}", "126"), ("\\infty", "∞"), ("x\\ne 2", "x ≠ 2"),
]  # fmt: skip
DIFFERENT = [
    ("7", "8"), ("7", "-7"), ("7", "70"), ("7", "7.0001"), ("1/3", "0.33"), ("1/3", "0.3333"), ("50", "0.5"),
    ("50", "5000"), ("0.5", "50"), ("0.2", "0.2\\%"), ("30000000000", "29999999999"), ("3^{70}+1", "3^{70}"),
    ("\\frac{1}{5^{60}}", "\\frac{1}{5^{61}}"), ("\\pi", "3.14"), ("19", "7 + 4 \\times 3"), ("12", "3*4"),
    ("12", "3 · 4"), ("12", "(7+5)"), ("1/2", "\\frac14+\\frac14"), ("10", "\\sum_{k=1}^{4} k"), ("6", "6_{7}"),
    ("6", "6 \\text{ is wrong}"), ("6", "\\text{not } 6"), ("6", "6{2}"), ("62", "6\\%2"), ("62", "\\$6\\$2"),
    ("62", "6points2"), ("62", "6,2"), ("6", "[0, 10]"), ("6", "\\pm 6"), ("6", "6, 7"), ("1, 2", "1"),
    ("1,2", "1,2,3"), ("1,2", "1,1"), ("(1,2)", "(2,1)"), ("(1,2)", "[1,2]"), ("(1,2)", "(1,2]"), ("x>4", "x<4"),
    ("x>4", "x\\ge 4"), ("x>4", "x\\in\\mathbb{R}"), ("x+1", "x-1"), ("x", "y"), ("ab", "a+b"), ("x=1", "y=1"),
    ("2x+y=3", "3"), ("0", "x^2-4=0"), ("\\{-2,2\\}", "x^2-4=0"), ("\\{-2, 2\\}", "2"),
    ("4\\text{ m}", "4\\text{ km}"), ("\\text{Monday}", "Friday"),
    ("|x|", "x"), ("\\sqrt{x^2}", "x"), ("42", "٤٣"), ("0", "О"), ("4", "4̶ 2"), ("3", "3ab"),
    ("5", "5a"), ("2", "2m"), ("7", "f'"), ("1", "\\frac{1}{0}"), ("0", "\\infty-\\infty"), ("A", "A \\text{ or } B"),
    ("\\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}2\\\\1\\end{pmatrix}"),
    ("2,1", "\\begin{pmatrix}1&2\\end{pmatrix}"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal_answers(verify, gold, answer):
    verdict = verify(f"Hence $\\boxed{{{answer}}}$.", gold)
    assert verdict.kind is VerdictKind.CORRECT, verdict
    assert verdict.rule


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different_answers(verify, gold, answer):
    verdict = verify(f"Hence $\\boxed{{{answer}}}$.", gold)
    assert verdict.kind in (VerdictKind.WRONG, VerdictKind.NO_ANSWER), verdict
    assert verdict.score == 0.0


@pytest.mark.parametrize(
    ("response", "gold", "correct"),
    [
        ("So there are 3 + 4 = **7** birds.", "7", True),
        ("The answer is 90 degrees.", "90", True),
        ("The answer is $x = 4$.", "4", True),
        ("The largest $n$ is 34.", "34", True),
        ("Final answer: 12, because 3 rows of 4 are 12.", "12", True),
        ("因此，一共有 **15** 颗糖。", "15", True),
        ("The answer is 5 or 6.", "5", False),
        ("The answer is 5 or 6.", "6", False),
        ("The answer is 5 or 6.", "5, 6", True),
        ("It is either 5 or 6", "6", False),
        ("The answer is not 5", "5", False),
        ("The answer is 5. No, the answer is 6.", "5", False),
        ("[print(1) for _ in [5]]", "5", False),
    ],
)
def test_answers_inside_sentences(verify, response, gold, correct):
    assert (verify(response, gold).kind is VerdictKind.CORRECT) is correct


@pytest.mark.parametrize("gold", ["", "  ", "?", "{", "\\frac{1}{", "$$", "1" * 20_000, "9^{9^{9^9}}"])
@pytest.mark.parametrize("response", ["\\boxed{5}", "5", "{", "", "?"])
def test_an_unusable_reference_is_never_right(verify, gold, response):
    assert verify(response, gold).kind is VerdictKind.BAD_REFERENCE


ABSURD = [
    "9^9^9^9", "9^{9^{9^{9}}}", "9**9**9", "10^{10^{10}}", "2^{99999999}", "(x+y+z)^{4000}", "x^{10^{15}}", "((7!)!)!",
    "99999999!", "\\binom{10^9}{10^8}", "\\Gamma(10^9)", "(" * 9000 + "1" + ")" * 9000,
    "\\sqrt{" * 300 + "2" + "}" * 300,
    "2^{" * 300 + "2" + "}" * 300, "1+" * 20_000 + "1", "\\frac" * 2000, "7" * 5000, "1," * 3000, "a" * 100_000,
    "9^{9^{9^{9}}}-9^{9^{9^{9}}}+5",
]  # fmt: skip


@pytest.mark.parametrize("answer", ABSURD, ids=lambda a: a[:16])
def test_absurd_answers_are_refused_before_any_parser(answer):
    worker = WorkerPool()
    verifier = MathVerifier(worker)
    start = time.perf_counter()
    verdict = verifier(f"\\boxed{{{answer}}}", "5", task=Task(id="m", source="", question="", answer="5"))
    assert time.perf_counter() - start < 0.5
    assert verdict.kind is VerdictKind.NO_ANSWER, verdict
    assert worker.pids == []


HONEST = ["2^{2^n}", "e^{x^2}", "2^{3^2}", "\\frac{n!}{k!(n-k)!}", "(x+1)^{20}", "2024^{2024}", "1.5 \\times 10^{30}"]


@pytest.mark.parametrize("answer", HONEST)
def test_honest_powers_are_not_refused(verify, answer):
    assert verify(f"\\boxed{{{answer}}}", answer).kind is VerdictKind.CORRECT
    assert verify(f"\\boxed{{{answer}}}", f"{answer}+x").rule != "box/refused"


INJECTIONS = [
    "__import__('os').system('touch {mark}')", "open('{mark}','w')", "(lambda:open('{mark}','w'))()",
    "[open('{mark}','w') for _ in [5]]", "exec(\"open('{mark}','w')\")", "Symbol('x').__class__", "exit()",
    "5)+(exit()",
]  # fmt: skip


@pytest.mark.parametrize("code", INJECTIONS)
def test_code_is_data(verify, tmp_path, code):
    mark = tmp_path / "mark"
    for text in (f"\\boxed{{{code.replace('{mark}', str(mark))}}}", f"Answer: {code.replace('{mark}', str(mark))}"):
        for gold in ("5", "x+1"):
            assert verify(text, gold).kind in (VerdictKind.WRONG, VerdictKind.NO_ANSWER)
    assert not mark.exists()
    assert verify("\\boxed{1+x}", "x+1").kind is VerdictKind.CORRECT


NUMBERS = st.fractions(max_denominator=500).map(lambda f: f if abs(f) < 10**6 else f % 1000)


@settings(max_examples=150, deadline=None)
@given(NUMBERS)
def test_a_rational_equals_its_other_spellings(verify, value):
    n, d = value.numerator, value.denominator
    gold = f"\\frac{{{n}}}{{{d}}}"
    for spelling in (f"{n}/{d}", f"\\dfrac{{{3 * n}}}{{{3 * d}}}", f"$ {gold} $", f"x = {gold}"):
        assert verify(f"\\boxed{{{spelling}}}", gold).kind is VerdictKind.CORRECT
    assert verify(f"\\boxed{{{n + d}/{d}}}", gold).kind is VerdictKind.WRONG


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="0123456789xyab+-*/^_{}()[],.=<>|!%$\\ sqrtfocpim", max_size=24))
def test_no_text_breaks_it(verify, text):
    verdict = verify(f"\\boxed{{{text}}}", "x^2+1")
    assert verdict.kind is not VerdictKind.BAD_REFERENCE
    assert verdict.kind is not VerdictKind.CRASH, verdict
