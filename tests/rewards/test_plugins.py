"""Plug-ins: what is refused when they are loaded, and what becomes a crash verdict when they are called."""

import sys

import pytest

from rewards.plugins import PluginError, call_reward, load_reward
from rewards.types import Task, Verdict, VerdictKind

TASK = Task(id="p", source="unit", question="?", answer="5")


@pytest.fixture
def write(tmp_path):
    def make(body, name="mine.py"):
        (tmp_path / name).write_text(body)
        return tmp_path

    return make


def returning(write, expression):
    base = write(
        "import math, numpy as np\nfrom rewards import Verdict, VerdictKind\n"
        f"def f(response, reference, *, task):\n    return {expression}\n"
    )
    return load_reward("mine.py:f", base=base)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine.py:g", r"has no 'g'.*defines brevity, few, many, later"),
        ("mine.py:breviti", "did you mean 'brevity'"),
        ("mine.py:NUMBER", "is a int, not a function"),
        ("mine.py:few", r"takes \(response\).*allowed is \(response: str, reference: str, \*, task: Task\)"),
        ("mine.py:many", "allowed is"),
        ("mine.py:later", "is `async`"),
        ("mine.py:", "no function name"),
        ("mine.py", "must be written as `file.py:function`"),
        ("other.py:f", "no such file; looked for .*other.py"),
        ("broken.py:f", "importing .* failed: ZeroDivisionError"),
        ("verifyer", "did you mean 'verifier'"),
        ("nothing_like_it", r"allowed are .*verifier.*`file.py:function`.*'thinkvl.rewards'"),
    ],
)
def test_mistakes_are_told_when_it_is_loaded(write, spec, message):
    write("1 / 0", "broken.py")
    base = write(
        "NUMBER = 3\ndef brevity(response, reference, *, task): return 1.0\nfew = lambda response: 1.0\n"
        "many = lambda a, b, c, *, task: 1.0\nasync def later(response, reference, *, task): return 1.0\n"
    )
    with pytest.raises(PluginError, match=message) as caught:
        load_reward(spec, base=base, known=("verifier", "format"))
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "value", "kind"),
    [
        ("0.75", 0.75, VerdictKind.CORRECT),
        ("0.25", 0.25, VerdictKind.WRONG),
        ("-2", -2.0, VerdictKind.WRONG),
        ("True", 1.0, VerdictKind.CORRECT),
        ("np.float32(0.5)", 0.5, VerdictKind.WRONG),
        ("{'a': 0.5, 'b': 0.25}", 0.75, VerdictKind.CORRECT),
        ("Verdict(kind=VerdictKind.CORRECT, score=0.5)", 0.5, VerdictKind.CORRECT),
        ("Verdict(kind=VerdictKind.TIMEOUT, score=0.0)", 0.0, VerdictKind.TIMEOUT),
    ],
)
def test_what_may_be_returned(write, expression, value, kind):
    outcome = call_reward(returning(write, expression), "5", "5", task=TASK)
    assert (outcome.value, outcome.verdict.kind) == (value, kind)


@pytest.mark.parametrize(
    ("expression", "detail"),
    [
        ("math.nan", "nan"), ("math.inf", "inf"), ("-math.inf", "inf"), ("'0.5'", "'0.5'"), ("None", "None"),
        ("[1.0]", "a list"), ("1j", "a complex"), ("{}", "empty dict"), ("{'a': math.nan}", "nan"),
        ("{1: 1.0}", "1: 1.0"),
        ("{'a': '1'}", "'1'"), ("Verdict(kind=VerdictKind.CORRECT, score=math.nan)", "nan"),
        ("np.array([1.0, 2.0])", "ndarray"),
        ("1 / 0", "ZeroDivisionError"), ("10 ** 400", "must be a finite float"),
    ],
)  # fmt: skip
def test_what_may_not_be_returned_is_a_crash_and_no_reward(write, expression, detail):
    outcome = call_reward(returning(write, expression), "5", "5", task=TASK)
    assert outcome.verdict.kind is VerdictKind.CRASH
    assert not outcome.verdict.is_reward
    assert detail in outcome.verdict.detail


def test_parts_are_kept_by_name(write):
    assert call_reward(returning(write, "{'a': 0.5, 'b': -1}"), "5", "5", task=TASK).parts == {"a": 0.5, "b": -1.0}


def test_a_users_rewards_py_shadows_nothing(write, monkeypatch):
    base = write("from rewards import Task\ndef mine(response, reference, *, task: Task): return 0.5\n", "rewards.py")
    monkeypatch.chdir(base)
    function = load_reward("rewards.py:mine")
    import rewards

    assert rewards.Verdict is Verdict
    assert sys.modules["rewards"] is rewards
    assert function.__module__ not in ("rewards", "__main__")
    assert call_reward(function, "5", "5", task=TASK).value == 0.5


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path):
    functions = []
    for value in (0.25, 0.75):
        folder = tmp_path / str(value)
        folder.mkdir()
        (folder / "mine.py").write_text(f"def f(response, reference, *, task): return {value}\n")
        functions.append(load_reward("mine.py:f", base=folder))
    assert [call_reward(f, "", "", task=TASK).value for f in functions] == [0.25, 0.75]


def test_the_recipes_folder_comes_before_the_working_directory(tmp_path, monkeypatch):
    for name, value in (("recipe", 0.25), ("cwd", 0.75)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"def f(response, reference, *, task): return {value}\n")
    monkeypatch.chdir(tmp_path / "cwd")
    assert load_reward("mine.py:f", base=tmp_path / "recipe")("", "", task=TASK) == 0.25
    assert load_reward("mine.py:f", base=tmp_path)("", "", task=TASK) == 0.75
    assert load_reward(f"{tmp_path}/recipe/mine.py:f")("", "", task=TASK) == 0.25
