"""Plug-ins in this process: what is refused when they are loaded, what becomes a crash when they are called."""

import sys

import pytest

from rewards.plugins.interface import PluginError, call_plugin
from rewards.plugins.loading import load_plugin, plugin_file
from rewards.types import Task, Verdict, VerdictKind

TASK = Task(id="p", source="unit", question="?", answer="5")


@pytest.fixture
def write(tmp_path):
    def make(body, name="mine.py"):
        (tmp_path / name).write_text(body)
        return tmp_path

    return make


def call_one(plugin, response="5"):
    (outcome,) = call_plugin(plugin, [response], TASK, seconds=0.2)
    return outcome


def returning(write, expression):
    base = write(
        "import math, numpy as np\nfrom rewards import Verdict, VerdictKind\n"
        f"def f(response, reference, *, task):\n    return {expression}\n"
    )
    return load_plugin("mine.py:f", base=base)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mine.py:g", r"has no 'g'.*defines brevity, few, many, later, grouped"),
        ("mine.py:breviti", "did you mean 'brevity'"),
        ("mine.py:NUMBER", "is an int, not a function"),
        ("mine.py:few", r"takes \(response\).*allowed is \(response: str, reference: str, \*, task: Task\)"),
        ("mine.py:many", "allowed is"),
        ("mine.py:grouped", r"allowed is .*\(responses: list\[str\], reference: str, \*, task: Task\)"),
        ("no_such_module:f", "importing no_such_module failed: ModuleNotFoundError"),
        ("json:f", r"json has no 'f'.*defines .*dumps"),
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
        "def grouped(responses, references, tasks): return []\n"
    )
    with pytest.raises(PluginError, match=message) as caught:
        load_plugin(spec, base=base, known=("verifier", "format"))
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
    outcome = call_one(returning(write, expression))
    assert (outcome.value, outcome.verdict.kind) == (value, kind)


@pytest.mark.parametrize(
    ("expression", "detail"),
    [
        ("math.nan", "nan"), ("math.inf", "inf"), ("-math.inf", "inf"), ("'0.5'", "'0.5'"), ("None", "None"),
        ("[1.0]", "a list"), ("1j", "a complex"), ("{}", "empty dict"), ("{'a': math.nan}", "nan"),
        ("{1: 1.0}", "1: 1.0"),
        ("{'a': '1'}", "'1'"), ("Verdict(kind=VerdictKind.CORRECT, score=math.nan)", "nan"),
        ("np.array([1.0, 2.0])", "ndarray"),
        ("1 / 0", "ZeroDivisionError"), ("10 ** 400", "must be a finite float"), ("10 ** 9000", "a huge int"),
        ("__import__('sys').exit(3)", "SystemExit: 3"), ("{'a': 1e308, 'b': 1e308}", "not finite"),
        ("(_ for _ in ()).throw(GeneratorExit('x'))", "GeneratorExit"),
    ],
)  # fmt: skip
def test_what_may_not_be_returned_is_a_crash_and_no_reward(write, expression, detail):
    outcome = call_one(returning(write, expression))
    assert outcome.verdict.kind is VerdictKind.CRASH
    assert not outcome.verdict.is_reward
    assert detail in outcome.verdict.detail


def test_parts_are_kept_by_name(write):
    assert call_one(returning(write, "{'a': 0.5, 'b': -1}")).parts == {"a": 0.5, "b": -1.0}


def test_a_users_rewards_py_shadows_nothing(write, monkeypatch):
    base = write("from rewards import Task\ndef mine(response, reference, *, task: Task): return 0.5\n", "rewards.py")
    monkeypatch.chdir(base)
    function = load_plugin("rewards.py:mine")
    import rewards

    assert rewards.Verdict is Verdict
    assert sys.modules["rewards"] is rewards
    assert function.function.__module__ not in ("rewards", "__main__")
    assert call_one(function).value == 0.5


def test_files_of_one_name_in_two_folders_are_two_modules(tmp_path):
    functions = []
    for value in (0.25, 0.75):
        folder = tmp_path / str(value)
        folder.mkdir()
        (folder / "mine.py").write_text(f"def f(response, reference, *, task): return {value}\n")
        functions.append(load_plugin("mine.py:f", base=folder))
    assert [call_one(f).value for f in functions] == [0.25, 0.75]


def test_the_recipes_folder_comes_before_the_working_directory(tmp_path, monkeypatch):
    for name, value in (("recipe", 0.25), ("cwd", 0.75)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.py").write_text(f"def f(response, reference, *, task): return {value}\n")
    monkeypatch.chdir(tmp_path / "cwd")
    assert call_one(load_plugin("mine.py:f", base=tmp_path / "recipe")).value == 0.25
    assert call_one(load_plugin("mine.py:f", base=tmp_path)).value == 0.75
    assert call_one(load_plugin(f"{tmp_path}/recipe/mine.py:f")).value == 0.25


def test_neighbours_of_a_file_can_be_imported_and_shadow_nothing(write):
    base = write("VALUE = 0.25\n", "my_neighbour.py")
    write("raise SystemExit('shadowed')\n", "rewards.py")
    write("from my_neighbour import VALUE\nimport rewards.types\ndef f(response, reference, *, task): return VALUE\n")
    assert call_one(load_plugin("mine.py:f", base=base)).value == 0.25


def test_a_module_that_can_be_imported(write, monkeypatch):
    monkeypatch.syspath_prepend(write("def f(response, reference, *, task): return 0.25\n", "my_rewards_module.py"))
    assert call_one(load_plugin("my_rewards_module:f")).value == 0.25


GROUPS = """
import asyncio

def ranks(responses, reference, *, task):
    return [len(responses) / 10 + i / 100 for i in range(len(responses))]

def short(responses, reference, *, task):
    return [1.0]

def text(responses, reference, *, task):
    return "ab"

def mixed(responses, reference, *, task):
    return [0.5, float("nan")]

def generator(responses, reference, *, task):
    yield 1.0

async def later(response, reference, *, task):
    await asyncio.sleep(float(response))
    return 0.75

async def group_later(responses, reference, *, task):
    await asyncio.sleep(float(responses[0]))
    return [0.25] * len(responses)

class Model:
    async def __call__(self, response, reference, *, task):
        return 0.5

model = Model()
"""


def grouped(write, name, responses):
    return call_plugin(load_plugin(f"mine.py:{name}", base=write(GROUPS)), responses, TASK, seconds=0.3)


def test_a_group_is_seen_at_once_and_answered_with_a_list(write):
    assert [o.value for o in grouped(write, "ranks", ["a", "b", "c"])] == [0.3, 0.31, 0.32]


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("short", "returned 1 value for 2 responses"),
        ("text", "returned 'ab': a group's reward must be a list"),
        ("generator", "returned a generator: a group's reward must be a list"),
    ],
)
def test_a_group_of_the_wrong_shape_is_a_crash_of_each(write, name, detail):
    outcomes = grouped(write, name, ["a", "b"])
    assert [o.verdict.kind for o in outcomes] == [VerdictKind.CRASH] * 2
    assert all(detail in o.verdict.detail for o in outcomes)


def test_a_bad_value_in_a_group_spoils_no_other(write):
    good, bad = grouped(write, "mixed", ["a", "b"])
    assert (good.value, good.verdict.kind) == (0.5, VerdictKind.WRONG)
    assert bad.verdict.kind is VerdictKind.CRASH


def test_async_ones_wait_together_and_a_late_one_alone_times_out(write):
    outcomes = grouped(write, "later", ["0.01", "9", "0.02", "x"])
    kinds = [o.verdict.kind for o in outcomes]
    assert kinds == [VerdictKind.CORRECT, VerdictKind.TIMEOUT, VerdictKind.CORRECT, VerdictKind.CRASH]
    assert [o.value for o in grouped(write, "group_later", ["0.01", "b"])] == [0.25, 0.25]
    assert [o.verdict.kind for o in grouped(write, "group_later", ["9", "b"])] == [VerdictKind.TIMEOUT] * 2
    assert grouped(write, "model", ["a"])[0].value == 0.5


@pytest.mark.parametrize(
    ("spec", "file"),
    [
        ("mine.py:f", "mine.py"),
        ("trl:sub/mine.py:f", "sub/mine.py"),
        ("verl:/abs/mine.py:compute_score", "/abs/mine.py"),
        ("trl:trl.rewards:accuracy_reward", None),
        ("format", None),
        ("trl", None),
    ],
)
def test_the_file_that_a_name_needs(spec, file):
    assert plugin_file(spec) == file
